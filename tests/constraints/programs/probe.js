// Completes a TLS handshake with 127.0.0.1:PORT as HOST, trusting the roots in FILE alone: probe.js HOST PORT FILE
const [host, port, file] = process.argv.slice(2);
const {connect} = require('tls');
const {isIP} = require('net');
const name = isIP(host) ? {} : {servername: host};
const socket = connect({host: '127.0.0.1', port, ca: require('fs').readFileSync(file), ...name});
socket.on('secureConnect', () => socket.end());
socket.on('error', error => { console.error(error.message); process.exitCode = 1; });
