'use strict';

const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const { Daemon, controlClient, dataClient } = require('./daemon');
const { attributes, blocks, both, imported, mac } = require('./keys');

let daemon, c;
const arn = {}; // of the keys that the tests make, by alias

before(async () => {
  daemon = await Daemon.start();
  c = dataClient(daemon, 'switch');
  const admin = controlClient(daemon, 'admin');
  const keep = async (alias, { Key }) => {
    arn[alias] = Key.KeyArn;
    await admin.call('CreateAlias', { AliasName: alias, KeyArn: Key.KeyArn });
  };
  const create = async (alias, ...of) => keep(alias, await admin.call('CreateKey', { KeyAttributes: attributes(...of), Exportable: false }));
  await create('alias/sdk/tak-1', 'TR31_M1_ISO_9797_1_MAC_KEY', 'TDES_2KEY', mac);
  await create('alias/sdk/tak-cmac', 'TR31_M6_ISO_9797_5_CMAC_KEY', 'AES_256', mac);
  await create('alias/sdk/tak-hmac', 'TR31_M7_HMAC_KEY', 'HMAC_SHA512', mac);
  await create('alias/sdk/zpk-aes', 'TR31_P0_PIN_ENCRYPTION_KEY', 'AES_256', both);
  await create('alias/sdk/data-3des', 'TR31_D0_SYMMETRIC_DATA_ENCRYPTION_KEY', 'TDES_3KEY', both);
  const take = async (alias, ...of) => keep(alias, await admin.call('ImportKey', imported(...of)));
  await take('alias/sdk/zpk', blocks.zpk);
  await take('alias/sdk/data/of-a', blocks.data);
  await take('alias/sdk/mak/up_1', blocks.unionPay, { Tags: [{ Key: 'keyd:mac-algorithm', Value: 'KEYD_UNIONPAY_ECB' }] });
  admin.close();
});
after(async () => {
  c.close();
  await daemon.remove();
});

const pan = { PrimaryAccountNumber: '4012345678909' };

test('TranslatePinData through formats and kinds of keys and back', async () => {
  let from = { key: 'alias/dev/bdk-tdes', format: 0, ksn: 'FFFF9876543210E00001', block: '1B9C1845EB993A7A' };
  for (const to of [
    { key: 'alias/sdk/zpk', format: 0, want: 'DCBAC0ABA559F78B' },
    { key: arn['alias/sdk/zpk'], format: 3 },
    { key: 'alias/sdk/zpk-aes', format: 4 },
    { key: 'alias/dev/bdk-aes', format: 4, ksn: '123456789012345600000001' },
    { key: 'alias/dev/bdk-tdes', format: 0, ksn: 'FFFF9876543210E00001', want: '1B9C1845EB993A7A' },
  ]) {
    const out = await c.call('TranslatePinData', {
      IncomingKeyIdentifier: from.key, IncomingTranslationAttributes: { [`IsoFormat${from.format}`]: pan }, EncryptedPinBlock: from.block,
      OutgoingKeyIdentifier: to.key, OutgoingTranslationAttributes: { [`IsoFormat${to.format}`]: pan },
      ...(from.ksn && { IncomingDukptAttributes: { KeySerialNumber: from.ksn } }),
      ...(to.ksn && { OutgoingDukptAttributes: { KeySerialNumber: to.ksn } }),
    });
    assert.equal(out.PinBlock.length, to.format === 4 ? 32 : 16);
    if (to.want) assert.equal(out.PinBlock, to.want);
    assert.equal(out.custody, 'process');
    from = { ...to, block: out.PinBlock };
  }
  // An empty structure must reach the wire.
  await assert.rejects(c.call('TranslatePinData', {
    IncomingKeyIdentifier: 'alias/sdk/zpk', IncomingTranslationAttributes: { IsoFormat1: {} }, EncryptedPinBlock: 'DCBAC0ABA559F78B',
    OutgoingKeyIdentifier: 'alias/sdk/zpk', OutgoingTranslationAttributes: { IsoFormat1: {} },
  }), { code: 'ValidationException', message: 'the PIN block was not accepted' });
});

const sale = '30323030333232303034383030304330303030313030303030303030303030303030313030303131323132323135303030303031323330353130305445524D303030314D45524348414E5430303030303031';

async function made(KeyIdentifier, MessageData, attributes, MacLength) {
  const length = MacLength && { MacLength };
  const { Mac, KeyArn, custody } = await c.call('GenerateMac', { KeyIdentifier, MessageData, GenerationAttributes: attributes, ...length });
  const good = await c.call('VerifyMac', { KeyIdentifier, MessageData, Mac, VerificationAttributes: attributes, ...length });
  assert.equal(good.KeyArn, KeyArn);
  assert.ok(['token', 'process'].includes(custody));
  return Mac;
}

test('GenerateMac and VerifyMac under static keys', async () => {
  for (const [key, Algorithm, length, bytes] of [
    ['alias/sdk/tak-1', 'ISO9797_ALGORITHM1', undefined, 4],
    ['alias/dev/zak', 'ISO9797_ALGORITHM3', 8, 8],
    [arn['alias/sdk/tak-cmac'], 'CMAC', undefined, 16],
    ['alias/sdk/tak-hmac', 'HMAC', 32, 32],
    ['alias/sdk/tak-hmac', 'HMAC_SHA512', undefined, 64],
  ]) {
    assert.equal((await made(key, `${sale}000000000000`, { Algorithm }, length)).length, 2 * bytes);
  }
});

test('GenerateMac and VerifyMac under DUKPT', async () => {
  const request = (KeySerialNumber) => ({ KeySerialNumber, DukptKeyVariant: 'REQUEST' });
  assert.equal(
    await made('alias/dev/bdk-tdes', '343031323334353637383930394439383700000000000000', { DukptIso9797Algorithm3: request('FFFF9876543210E00001') }, 8),
    '9CCC78173FC4FB64',
  );
  assert.equal(await made('alias/dev/bdk-aes', sale, { DukptCmac: request('123456789012345600000001') }), 'A33EF51FEC39BC5475FF7A152164D27A');
});

test('an extension algorithm, a value that the SDK does not know', async () => {
  const message = '3230313630393133323031363039313332303136303931333230313630393133';
  for (const key of ['alias/sdk/mak/up_1', arn['alias/sdk/mak/up_1']]) {
    assert.equal(await made(key, message, { Algorithm: 'KEYD_UNIONPAY_ECB' }), '3330323731433734');
  }
});

const plain = '6BC1BEE22E409F96E93D7E117393172A';
const vector = '000102030405060708090A0B0C0D0E0F';

test('data keys, named in every form that a path can hold', async () => {
  const name = 'alias/sdk/data/of-a';
  for (const key of [name, arn[name], arn[name].replace(/key\/.*/, name)]) {
    for (const [Symmetric, CipherText] of [
      [{ Mode: 'ECB' }, '3AD77BB40D7A3660A89ECAF32466EF97'],
      [{ Mode: 'CBC', InitializationVector: vector }, '7649ABAC8119B246CEE98E9B12E9197D'],
    ]) {
      const out = await c.call('EncryptData', { KeyIdentifier: key, PlainText: plain, EncryptionAttributes: { Symmetric } });
      assert.equal(out.CipherText, CipherText);
      assert.equal(out.KeyArn, arn[name]);
      const back = await c.call('DecryptData', { KeyIdentifier: key, CipherText, DecryptionAttributes: { Symmetric } });
      assert.equal(back.PlainText, plain);
    }
    const moved = await c.call('ReEncryptData', {
      IncomingKeyIdentifier: key, IncomingEncryptionAttributes: { Symmetric: { Mode: 'CBC', InitializationVector: vector } },
      OutgoingKeyIdentifier: key, OutgoingEncryptionAttributes: { Symmetric: { Mode: 'ECB' } }, CipherText: '7649ABAC8119B246CEE98E9B12E9197D',
    });
    assert.equal(moved.CipherText, '3AD77BB40D7A3660A89ECAF32466EF97');
  }
});

test('DUKPT data keys', async () => {
  for (const [key, KeySerialNumber] of [['alias/dev/bdk-tdes', 'FFFF9876543210E00001'], ['alias/dev/bdk-aes', '123456789012345600000001']]) {
    const Dukpt = { KeySerialNumber, DukptKeyVariant: 'REQUEST', Mode: 'CBC' };
    const { CipherText } = await c.call('EncryptData', { KeyIdentifier: key, PlainText: plain, EncryptionAttributes: { Dukpt } });
    const back = await c.call('DecryptData', { KeyIdentifier: key, CipherText, DecryptionAttributes: { Dukpt } });
    assert.equal(back.PlainText, plain);
    const moved = await c.call('ReEncryptData', {
      IncomingKeyIdentifier: key, IncomingEncryptionAttributes: { Dukpt }, CipherText,
      OutgoingKeyIdentifier: 'alias/sdk/data-3des', OutgoingEncryptionAttributes: { Symmetric: { Mode: 'CBC' } },
    });
    assert.equal(moved.KeyArn, arn['alias/sdk/data-3des']);
  }
});

test('keys that travel with the request', async () => {
  const travels = (Tr31KeyBlock) => ({ WrappedKeyMaterial: { Tr31KeyBlock } });
  const out = await c.call('TranslatePinData', {
    IncomingKeyIdentifier: 'alias/dev/kek', IncomingWrappedKey: travels(blocks.zpk), IncomingTranslationAttributes: { IsoFormat0: pan }, EncryptedPinBlock: 'DCBAC0ABA559F78B',
    OutgoingKeyIdentifier: 'alias/dev/bdk-tdes', OutgoingDukptAttributes: { KeySerialNumber: 'FFFF9876543210E00001' }, OutgoingTranslationAttributes: { IsoFormat0: pan },
  });
  assert.equal(out.PinBlock, '1B9C1845EB993A7A');
  const made = await c.call('EncryptData', {
    KeyIdentifier: 'alias/dev/kek', WrappedKey: travels(blocks.data), PlainText: plain, EncryptionAttributes: { Symmetric: { Mode: 'ECB' } },
  });
  assert.equal(made.CipherText, '3AD77BB40D7A3660A89ECAF32466EF97');
});

test('large values', async () => {
  assert.equal((await made('alias/sdk/tak-cmac', '5A'.repeat(65_536), { Algorithm: 'CMAC' })).length, 32);
  await assert.rejects(c.call('GenerateMac', {
    KeyIdentifier: 'alias/sdk/tak-cmac', MessageData: '5A'.repeat(65_537), GenerationAttributes: { Algorithm: 'CMAC' },
  }), { code: 'ValidationException', statusCode: 400 });
});

test('every operation of the plane was called', () => {
  assert.deepEqual(daemon.operations('data').filter((name) => !c.called.has(name)), []);
});
