// Reads connections, one line of base64 each, by Node's own HTTP server; prints what it takes for requests.
'use strict';
const http = require('http');
const { Duplex } = require('stream');
const readline = require('readline');

class Connection extends Duplex {
  constructor() { super({ allowHalfOpen: true }); }
  _read() {}
  _write(chunk, encoding, done) { done(); }
  setTimeout() { return this; }
  setNoDelay() { return this; }
  setKeepAlive() { return this; }
  ref() { return this; }
  unref() { return this; }
}

function read(data) {
  return new Promise((resolve) => {
    const requests = [];
    let begun = 0;
    let rest = '';
    const server = http.createServer((request, response) => {
      begun += 1;
      const body = [];
      request.on('data', (piece) => body.push(piece));
      request.on('end', () => {
        requests.push({ method: request.method, target: request.url, body: Buffer.concat(body).toString('base64') });
        response.end();
      });
    });
    server.on('checkExpectation', (request, response) => server.emit('request', request, response));
    server.on('clientError', (error, socket) => {
      rest = rest || (/EPIPE|ECONNRESET|INVALID_EOF_STATE/.test(error.code) ? 'unfinished' : error.code || error.message);
      socket.destroy();
    });
    const connection = new Connection();
    server.emit('connection', connection);
    connection.push(data);
    connection.push(null);
    const looks = (left) => setImmediate(() => {
      if (left > 0) return looks(left - 1);
      resolve({ requests, rest: rest || (begun > requests.length ? 'unfinished' : '') });
    });
    looks(12);
  });
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await read(Buffer.from(line, 'base64'))));
  }
  process.exit(0);
})();
