// fetch.js PROXY-PORT HOST PORT ROOTS: GET https://HOST:PORT/ through the proxy, trusting the roots and nobody else.
const [proxy, host, port, roots] = process.argv.slice(2);
const failed = (error) => { console.error(`${error.code} ${error.message}`); process.exit(1); };
const path = `${host}:${port}`;
require('http').request({host: '127.0.0.1', port: proxy, method: 'CONNECT', path, headers: {host: path}})
  .on('connect', (_, socket) => {
    const ca = require('fs').readFileSync(roots);
    const secured = require('tls').connect({socket, servername: host, ca});
    secured.once('error', failed).once('secureConnect', () => {
      require('https').get(`https://${path}/`, {createConnection: () => secured},
        (response) => response.pipe(process.stdout)).on('error', failed);
    });
  }).on('error', failed).end();
