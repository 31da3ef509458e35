// A development daemon of one's own, and the official clients set up for it.
'use strict';

const { execFileSync, spawn } = require('node:child_process');
const fs = require('node:fs');
const https = require('node:https');
const os = require('node:os');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');

const KEYD = process.env.KEYD;
if (!KEYD) throw new Error('KEYD must name the program');

// The region of a development daemon, which is in no partition of AWS.
const REGION = 'xx-keyd-1';

// The SDKs want credentials; keyd looks at none.
const credentials = { accessKeyId: 'unused', secretAccessKey: 'unused' };

class Daemon {
  // start makes a daemon in a new folder; with `change`, its configuration is
  // changed by that function first.
  static async start(change) {
    const d = new Daemon();
    d.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'keyd-node-'));
    d.said = '';
    await d.run();
    if (change) {
      await d.stop();
      const config = path.join(d.dir, 'keyd.toml');
      fs.writeFileSync(config, change(fs.readFileSync(config, 'utf8')));
      await d.run();
    }
    return d;
  }

  async run() {
    this.process = spawn(KEYD, ['dev', '--dir', this.dir, '--no-sim'], { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.process.stdout, this.process.stderr]) stream.on('data', (text) => { this.said += text; });
    this.ended = new Promise((resolve) => this.process.on('exit', resolve));
    const report = path.join(this.dir, 'dev.json');
    await until('keyd dev is ready', () => {
      if (this.process.exitCode !== null) throw new Error(`keyd dev ended:\n${this.said}`);
      return fs.existsSync(report);
    });
    this.dev = JSON.parse(fs.readFileSync(report, 'utf8'));
  }

  // stop ends the daemon as an operator does; a daemon that was broken on
  // purpose may end with another code than 0.
  async stop({ broken = false } = {}) {
    this.process.kill('SIGTERM');
    const code = await this.ended;
    if (code !== 0 && !broken) throw new Error(`keyd dev ended with ${code}:\n${this.said}`);
  }

  async remove(options) {
    await this.stop(options);
    fs.rmSync(this.dir, { recursive: true, force: true });
  }

  // agent shows the certificate of a client of the daemon.
  agent(client) {
    const { cert, key } = this.dev.clients[client];
    return new https.Agent({
      ca: fs.readFileSync(this.dev.ca_cert), cert: fs.readFileSync(cert), key: fs.readFileSync(key), keepAlive: true,
    });
  }

  // operations are those that keyd serves on a plane.
  operations(plane) {
    const rows = execFileSync(KEYD, ['call', '--list'], { encoding: 'utf8' }).trim().split('\n').slice(1);
    return rows.map((row) => row.split(/ {2,}/)).filter((row) => row[1] === plane).map((row) => row[0]);
  }

  // records are those of the audit log, oldest first.
  records() {
    const text = execFileSync(KEYD, ['audit', 'ls', '--dir', this.dev.audit_dir, '--json', '--limit', '0'], { encoding: 'utf8', maxBuffer: 1 << 28 });
    return text.trim().split('\n').map((line) => JSON.parse(line));
  }
}

// until asks again until the answer is a true one.
async function until(what, ask) {
  for (const end = Date.now() + 60_000; Date.now() < end; await sleep(50)) {
    if (await ask()) return;
  }
  throw new Error(`not within a minute: ${what}`);
}

// losing is a network that loses the first answers: TLS ends in it, and it
// speaks to the daemon with the certificate of one client.
async function losing(daemon, client, count) {
  const pki = path.join(daemon.dir, 'pki');
  const agent = daemon.agent(client);
  const lost = { left: count, ids: [] };
  const server = https.createServer({ cert: fs.readFileSync(path.join(pki, 'server.pem')), key: fs.readFileSync(path.join(pki, 'server.key')) });
  server.on('request', (request, response) => {
    lost.ids.push(request.headers['amz-sdk-invocation-id']);
    const onward = https.request(daemon.dev.api_url + request.url, { agent, method: request.method, headers: request.headers }, (answer) => {
      if (lost.left > 0) {
        lost.left -= 1;
        answer.resume().on('end', () => request.socket.destroy());
        return;
      }
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    request.pipe(onward);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  lost.url = `https://127.0.0.1:${server.address().port}`;
  lost.close = () => new Promise((resolve) => { agent.destroy(); server.closeAllConnections(); server.close(resolve); });
  return lost;
}

// dataClient is aws-sdk v2 for the data plane. What it calls is noted.
function dataClient(daemon, client, options = {}) {
  process.env.AWS_SDK_JS_SUPPRESS_MAINTENANCE_MODE_MESSAGE = '1';
  const AWS = require('aws-sdk');
  const sdk = new AWS.PaymentCryptographyData({
    endpoint: daemon.dev.api_url, region: REGION, credentials: new AWS.Credentials(credentials),
    maxRetries: 0, httpOptions: { agent: daemon.agent(client), timeout: 30_000 }, ...options,
  });
  const called = new Set();
  return {
    called,
    close: () => sdk.config.httpOptions.agent.destroy(),
    async call(operation, input) {
      called.add(operation);
      const request = sdk[operation[0].toLowerCase() + operation.slice(1)](input);
      const output = await request.promise();
      return { ...output, custody: request.response.httpResponse.headers['x-keyd-custody'] };
    },
  };
}

// controlClient is the JavaScript SDK v3 for the control plane.
function controlClient(daemon, client, options = {}) {
  const v3 = require('@aws-sdk/client-payment-cryptography');
  const { NodeHttpHandler } = require('@smithy/node-http-handler');
  const sdk = new v3.PaymentCryptographyClient({
    endpoint: daemon.dev.api_url, region: REGION, credentials, maxAttempts: 1,
    requestHandler: new NodeHttpHandler({ httpsAgent: daemon.agent(client), requestTimeout: 30_000 }), ...options,
  });
  const called = new Set();
  return {
    v3, sdk, called,
    close: () => sdk.destroy(),
    call(operation, input) {
      called.add(operation);
      return sdk.send(new v3[`${operation}Command`](input));
    },
  };
}

module.exports = { Daemon, dataClient, controlClient, losing, until, REGION };
