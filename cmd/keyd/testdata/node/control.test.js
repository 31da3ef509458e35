'use strict';

const assert = require('node:assert/strict');
const { constants, publicEncrypt, X509Certificate } = require('node:crypto');
const fs = require('node:fs');
const { after, before, test } = require('node:test');
const { Daemon, controlClient, REGION } = require('./daemon');
const { attributes, blocks, both, imported } = require('./keys');

let daemon, c, key;
before(async () => {
  daemon = await Daemon.start();
  c = controlClient(daemon, 'admin');
});
after(async () => {
  c.close();
  await daemon.remove();
});

const pem = (text) => new X509Certificate(Buffer.from(text, 'base64'));

test('CreateKey and GetKey', async () => {
  const made = await c.call('CreateKey', {
    KeyAttributes: attributes('TR31_P0_PIN_ENCRYPTION_KEY', 'TDES_3KEY', both), Exportable: true, Enabled: true,
    KeyCheckValueAlgorithm: 'ANSI_X9_24', Tags: [{ Key: 'estate', Value: 'north' }, { Key: 'keyd:iso4-pan', Value: 'full' }],
  });
  key = made.Key.KeyArn;
  assert.match(key, new RegExp(`^arn:aws:payment-cryptography:${REGION}:000000000000:key/[0-9a-z]{32}$`));
  assert.match(made.Key.KeyCheckValue, /^[0-9A-F]{6}$/);
  assert.ok(made.Key.CreateTimestamp instanceof Date && Math.abs(Date.now() - made.Key.CreateTimestamp) < 3_600_000);
  const got = await c.call('GetKey', { KeyIdentifier: key });
  assert.deepEqual(got.Key, made.Key);
  assert.deepEqual(Object.keys(got.Key.KeyAttributes.KeyModesOfUse).length, 9);
});

test('aliases', async () => {
  const AliasName = 'alias/sdk/zone/A-1_b';
  const made = await c.call('CreateAlias', { AliasName, KeyArn: key });
  assert.deepEqual(made.Alias, { AliasName, KeyArn: key });
  for (const KeyIdentifier of [AliasName, key.replace(/key\/.*/, AliasName)]) {
    assert.equal((await c.call('GetKey', { KeyIdentifier })).Key.KeyArn, key);
  }
  await c.call('UpdateAlias', { AliasName });
  assert.deepEqual((await c.call('GetAlias', { AliasName })).Alias, { AliasName });
  await c.call('UpdateAlias', { AliasName, KeyArn: key });
  assert.deepEqual((await c.call('ListAliases', { KeyArn: key })).Aliases, [{ AliasName, KeyArn: key }]);
  await c.call('DeleteAlias', { AliasName });
  await assert.rejects(c.call('GetAlias', { AliasName }), (e) => e instanceof c.v3.ResourceNotFoundException && e.ResourceId === AliasName);
});

test('tags', async () => {
  const odd = { Key: 'Ümlaut 键', Value: 'a=b/c:d + "e"' };
  await c.call('TagResource', { ResourceArn: key, Tags: [odd, { Key: 'keyd:warn-percent', Value: '50,80' }] });
  await c.call('UntagResource', { ResourceArn: key, TagKeys: ['estate'] });
  const { Tags } = await c.call('ListTagsForResource', { ResourceArn: key });
  assert.deepEqual(Tags.map((t) => `${t.Key}=${t.Value}`).sort(), ['keyd:iso4-pan=full', 'keyd:warn-percent=50,80', `${odd.Key}=${odd.Value}`].sort());
});

test('lists page by page', async () => {
  await c.call('TagResource', { ResourceArn: key, Tags: Array.from({ length: 23 }, (_, i) => ({ Key: `t${i}`, Value: 'v' })) });
  for (let i = 0; i < 7; i += 1) await c.call('CreateAlias', { AliasName: `alias/sdk/page/${i}`, KeyArn: key });
  const count = async (pages, list) => {
    let n = 0;
    for await (const page of pages) n += page[list].length;
    return n;
  };
  const client = c.sdk;
  const all = (await c.call('ListKeys', { MaxResults: 100 })).Keys.length;
  assert.equal(await count(c.v3.paginateListKeys({ client, pageSize: 2 }, {}), 'Keys'), all);
  assert.equal(await count(c.v3.paginateListAliases({ client, pageSize: 3 }, { KeyArn: key }), 'Aliases'), 7);
  assert.equal(await count(c.v3.paginateListTagsForResource({ client, pageSize: 10 }, { ResourceArn: key }), 'Tags'), 26);
  await assert.rejects(c.call('ListKeys', { NextToken: 'of-another-list' }), c.v3.ValidationException);
});

test('key blocks in and out', async () => {
  const { Key } = await c.call('ImportKey', imported(blocks.zpk));
  assert.equal(Key.KeyCheckValue, 'F7AFA6');
  assert.equal(Key.KeyOrigin, 'EXTERNAL');
  const { WrappedKey } = await c.call('ExportKey', {
    ExportKeyIdentifier: Key.KeyArn,
    KeyMaterial: { Tr31KeyBlock: { WrappingKeyIdentifier: 'alias/dev/kek', KeyBlockHeaders: { KeyModesOfUse: { Encrypt: true, Wrap: true }, KeyExportability: 'NON_EXPORTABLE' } } },
  });
  assert.match(WrappedKey.KeyMaterial, /^D0112P0TE00N0000/);
  assert.equal(WrappedKey.WrappedKeyMaterialFormat, 'TR31_KEY_BLOCK');
  const initial = await c.call('ExportKey', {
    ExportKeyIdentifier: 'alias/dev/bdk-tdes', KeyMaterial: { Tr31KeyBlock: { WrappingKeyIdentifier: 'alias/dev/kek' } },
    ExportAttributes: { ExportDukptInitialKey: { KeySerialNumber: 'FFFF9876543210E00000' }, KeyCheckValueAlgorithm: 'ANSI_X9_24' },
  });
  assert.equal(initial.WrappedKey.KeyCheckValue, 'AF8C07'); // of the published initial key
});

test('a key under RSA', async () => {
  const params = await c.call('GetParametersForImport', { KeyMaterialType: 'KEY_CRYPTOGRAM', WrappingKeyAlgorithm: 'RSA_2048' });
  assert.ok(params.ParametersValidUntilTimestamp - Date.now() > 29 * 86_400_000);
  const wrapping = pem(params.WrappingKeyCertificate);
  assert.ok(wrapping.verify(pem(params.WrappingKeyCertificateChain).publicKey));
  const value = Buffer.from('A4795D7338988CC757946BFEBC8F1089', 'hex');
  const cryptogram = publicEncrypt({ key: wrapping.publicKey, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' }, value);
  const { Key } = await c.call('ImportKey', {
    KeyMaterial: {
      KeyCryptogram: {
        KeyAttributes: attributes('TR31_K0_KEY_ENCRYPTION_KEY', 'TDES_2KEY', both), Exportable: true, ImportToken: params.ImportToken,
        WrappedKeyCryptogram: cryptogram.toString('hex').toUpperCase(), WrappingSpec: 'RSA_OAEP_SHA_256',
      },
    },
  });
  assert.equal(Key.KeyCheckValue, 'A2E5C9');
  const out = await c.call('GetParametersForExport', { KeyMaterialType: 'TR34_KEY_BLOCK', SigningKeyAlgorithm: 'RSA_2048' });
  assert.match(out.ExportToken, /^export-token-/);
});

test('certificates', async () => {
  // The daemon's own CA is a root like any other: self-signed, P-256.
  const text = fs.readFileSync(daemon.dev.ca_cert);
  const { Key } = await c.call('ImportKey', {
    KeyMaterial: {
      RootCertificatePublicKey: {
        KeyAttributes: { KeyUsage: 'TR31_S0_ASYMMETRIC_KEY_FOR_DIGITAL_SIGNATURE', KeyClass: 'PUBLIC_KEY', KeyAlgorithm: 'ECC_NIST_P256', KeyModesOfUse: { Verify: true } },
        PublicKeyCertificate: text.toString('base64'),
      },
    },
  });
  const got = await c.call('GetPublicKeyCertificate', { KeyIdentifier: Key.KeyArn });
  assert.equal(pem(got.KeyCertificate).fingerprint256, new X509Certificate(text).fingerprint256);
});

test('stop, start, delete, restore', async () => {
  const KeyIdentifier = key;
  assert.equal((await c.call('StopKeyUsage', { KeyIdentifier })).Key.Enabled, false);
  assert.equal((await c.call('StartKeyUsage', { KeyIdentifier })).Key.Enabled, true);
  const pending = (await c.call('DeleteKey', { KeyIdentifier, DeleteKeyInDays: 3 })).Key;
  assert.equal(pending.KeyState, 'DELETE_PENDING');
  assert.ok(pending.DeletePendingTimestamp instanceof Date);
  const back = (await c.call('RestoreKey', { KeyIdentifier })).Key;
  assert.equal(back.KeyState, 'CREATE_COMPLETE');
  assert.equal(back.Enabled, false);
});

test('every operation of the plane was called', () => {
  assert.deepEqual(daemon.operations('control').filter((name) => !c.called.has(name)), []);
});
