'use strict';

// The program of docs/API.md, as it stands there.

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { test } = require('node:test');
const { Daemon } = require('./daemon');

const name = 'clients.mjs';
const text = fs.readFileSync(path.join(__dirname, '..', '..', '..', '..', 'docs', 'API.md'), 'utf8');
const [, code] = text.split(`<!-- tested: ${name} -->\n\`\`\`js\n`);
// Beside the installed clients: modules look for others there.
const program = path.join(process.env.NODE_PATH, '..', name);

function run(daemon, url) {
  const { cert, key } = daemon.dev.clients.switch;
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, url, daemon.dev.ca_cert, cert, key], { encoding: 'utf8' });
  return { status, out: stdout.trim(), stderr };
}

test('the program of docs/API.md', async () => {
  fs.writeFileSync(program, code.split('\n```\n')[0]);
  const daemon = await Daemon.start();
  const good = run(daemon, daemon.dev.api_url);
  assert.deepEqual([good.status, good.out], [0, '3BF647997E9FAFC4'], good.stderr);
  const forgotten = run(daemon, '');
  assert.notEqual(forgotten.status, 0);
  assert.match(forgotten.stderr, /no endpoint/);
  await daemon.remove();
});

test('its guard against something of another region', async () => {
  const daemon = await Daemon.start((config) => config.replace(/^region = .*$/m, "region = 'xx-other-1'"));
  const { status, stderr } = run(daemon, daemon.dev.api_url);
  assert.notEqual(status, 0);
  assert.match(stderr, /is not keyd's/);
  await daemon.remove();
});
