'use strict';

const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const { Daemon, controlClient, dataClient, losing, until } = require('./daemon');
const { attributes, mac } = require('./keys');

let daemon;
before(async () => { daemon = await Daemon.start(); });
after(async () => daemon.remove());

const macKey = { KeyAttributes: attributes('TR31_M6_ISO_9797_5_CMAC_KEY', 'AES_128', mac), Exportable: false };

async function keyCount(c) {
  return (await c.call('ListKeys', { MaxResults: 100 })).Keys.length;
}

test('v3 loses two answers to CreateKey, tries again by itself, and one key is made', async () => {
  const network = await losing(daemon, 'admin', 2);
  const c = controlClient(daemon, 'admin', { endpoint: network.url, maxAttempts: 4 });
  const before = await keyCount(controlClient(daemon, 'admin'));
  const { Key } = await c.call('CreateKey', macKey);
  assert.equal(network.ids.length, 3);
  assert.equal(new Set(network.ids).size, 1);
  assert.match(network.ids[0], /^[0-9a-f-]{36}$/);
  assert.equal(await keyCount(c), before + 1);
  assert.equal((await c.call('GetKey', { KeyIdentifier: Key.KeyArn })).Key.KeyCheckValue, Key.KeyCheckValue);
  c.close();
  await network.close();

  // The log says once that a key was made, and twice that the answer was given again.
  const id = Key.KeyArn.split('/').pop();
  let mine = [];
  await until('the records are in the log', () => {
    mine = daemon.records().filter((r) => r.phase === 'outcome' && (r.keys || []).some((k) => k.id === id));
    return mine.length === 3;
  });
  assert.deepEqual(mine.map((r) => [r.action, r.replay === true]), [['key.create', false], ['key.attr', true], ['key.attr', true]]);
});

test('one invocation id, another body: refused', async () => {
  const c = controlClient(daemon, 'admin');
  const fixed = (next) => (args) => {
    args.request.headers['amz-sdk-invocation-id'] = 'of-one-call-only';
    return next(args);
  };
  c.sdk.middlewareStack.add(fixed, { step: 'finalizeRequest', priority: 'low', name: 'fixedInvocation' });
  const first = await c.call('CreateKey', macKey);
  const again = await c.call('CreateKey', macKey);
  assert.equal(again.Key.KeyArn, first.Key.KeyArn);
  assert.notEqual(again.$metadata.requestId, first.$metadata.requestId);
  await assert.rejects(c.call('CreateKey', { ...macKey, Enabled: false }), c.v3.ValidationException);
  await assert.rejects(c.call('CreateAlias', { AliasName: 'alias/sdk/once' }), c.v3.ValidationException);
  c.close();
});

test('v2 sends no invocation id; a lost answer is asked for again', async () => {
  const network = await losing(daemon, 'switch', 1);
  const c = dataClient(daemon, 'switch', { endpoint: network.url, maxRetries: 2 });
  const out = await c.call('GenerateMac', {
    KeyIdentifier: 'alias/dev/bdk-tdes', MessageData: '343031323334353637383930394439383700000000000000', MacLength: 8,
    GenerationAttributes: { DukptIso9797Algorithm3: { KeySerialNumber: 'FFFF9876543210E00001', DukptKeyVariant: 'REQUEST' } },
  });
  assert.equal(out.Mac, '9CCC78173FC4FB64');
  assert.deepEqual(network.ids, [undefined, undefined]);
  c.close();
  await network.close();
});
