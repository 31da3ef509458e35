'use strict';

// Every error of section 6, from its real cause in a real daemon, as the SDKs
// hand it to a program.

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { Daemon, controlClient, dataClient, until } = require('./daemon');
const { attributes, mac } = require('./keys');

let daemon, data, admin;
before(async () => {
  daemon = await Daemon.start((config) => config
    .replace(/^refused_pins_per_minute = .*$/m, 'refused_pins_per_minute = 3')
    .replace(/^checkpoint_interval = .*$/m, "checkpoint_interval = '100ms'")
    .replace(/^unsigned_limit = .*$/m, "unsigned_limit = '5s'") // which a busy machine keeps
    .replace(/^\[api\]$/m, '[api]\nmost_keys = 7\nmost_aliases = 6')
    .replace(/^name = 'operator'$/m, "name = 'operator'\nrequests_per_second = 1\nburst = 1"));
  data = dataClient(daemon, 'switch');
  admin = controlClient(daemon, 'admin');
});
after(async () => {
  data.close();
  admin.close();
  await daemon.remove({ broken: true }); // the token is away
});

const message = '00112233445566778899AABBCCDDEEFF';
const alg3 = { Algorithm: 'ISO9797_ALGORITHM3' };
const macUnder = (KeyIdentifier) => data.call('GenerateMac', { KeyIdentifier, MessageData: message, GenerationAttributes: alg3 });
const macKey = { KeyAttributes: attributes('TR31_M6_ISO_9797_5_CMAC_KEY', 'AES_128', mac), Exportable: false };
const verify = (c) => c.call('VerifyMac', { KeyIdentifier: 'alias/dev/zak', MessageData: message, Mac: '0011223344556677', VerificationAttributes: alg3 });

// fails is what an error of v2 must be, fails3 one of v3.
async function fails(promise, code, statusCode, more = {}) {
  await assert.rejects(promise, (e) => {
    const { requestId, retryable } = e;
    assert.deepEqual({ code: e.code, statusCode: e.statusCode, said: e.message !== '' }, { code, statusCode, said: true });
    assert.match(requestId, /^[0-9a-f-]{36}$/);
    assert.equal(Boolean(retryable), statusCode >= 500 || statusCode === 429);
    for (const [name, value] of Object.entries(more)) assert.deepEqual(e[name], value);
    return true;
  });
}
async function fails3(promise, name, status, more = {}) {
  await assert.rejects(promise, (e) => {
    assert.deepEqual({ name: e.name, status: e.$metadata.httpStatusCode, said: e.message !== '' && e.message !== 'UnknownError' }, { name, status, said: true });
    assert.match(e.$metadata.requestId, /^[0-9a-f-]{36}$/);
    if (admin.v3[name]) assert.ok(e instanceof admin.v3[name], `${name} is not of its class`);
    for (const [member, value] of Object.entries(more)) assert.deepEqual(e[member], value);
    return true;
  });
}

test('data plane, by request', async () => {
  await fails(macUnder('alias/dev/zpk'), 'ValidationException', 400, {
    message: 'the key cannot be used for this operation', fieldList: [{ path: 'KeyIdentifier', message: 'usage P0 is not for this algorithm' }],
  });
  await fails(verify(data), 'VerificationFailedException', 400, { Reason: 'INVALID_MAC' });
  await fails(macUnder('alias/dev/none'), 'ResourceNotFoundException', 404, { ResourceId: 'alias/dev/none' });
  for (const client of ['nobody', 'admin', 'auditor', 'terminal']) {
    const c = dataClient(daemon, client);
    await fails(verify(c), 'AccessDeniedException', 403);
    c.close();
  }
  await fails(data.call('GenerateCardValidationData', {
    KeyIdentifier: 'alias/dev/zak', PrimaryAccountNumber: '4111111111111111', GenerationAttributes: { CardVerificationValue2: { CardExpiryDate: '1230' } },
  }), 'UnknownOperationException', 404);
});

test('control plane, by request', async () => {
  await fails3(admin.call('CreateKey', { ...macKey, KeyAttributes: attributes('TR31_B0_BASE_DERIVATION_KEY', 'TDES_2KEY', mac) }), 'ValidationException', 400);
  await fails3(admin.call('GetAlias', { AliasName: 'alias/dev/none' }), 'ResourceNotFoundException', 400, { ResourceId: 'alias/dev/none' });
  const application = controlClient(daemon, 'switch');
  await fails3(application.call('StopKeyUsage', { KeyIdentifier: 'alias/dev/zpk' }), 'AccessDeniedException', 400);
  application.close();
  const { Key } = await admin.call('GetKey', { KeyIdentifier: 'alias/dev/zak' });
  await fails3(admin.call('CreateAlias', { AliasName: 'alias/dev/zpk', KeyArn: Key.KeyArn }), 'ConflictException', 400);
  const never = controlClient(daemon, 'admin');
  never.sdk.middlewareStack.add((next) => (args) => {
    args.request.headers['x-amz-target'] = 'PaymentCryptographyControlPlane.PutResourcePolicy';
    return next(args);
  }, { step: 'finalizeRequest', priority: 'low' });
  await fails3(never.call('ListKeys', {}), 'UnknownOperationException', 400);
  never.close();
});

test('429: too many refused PIN blocks', async () => {
  const format = { IsoFormat0: { PrimaryAccountNumber: '4111111111111111' } };
  const pin = () => data.call('TranslatePinData', {
    IncomingKeyIdentifier: 'alias/dev/zpk', IncomingTranslationAttributes: format, EncryptedPinBlock: '0011223344556677',
    OutgoingKeyIdentifier: 'alias/dev/zpk', OutgoingTranslationAttributes: format,
  });
  for (let i = 0; i < 3; i += 1) await fails(pin(), 'ValidationException', 400, { message: 'the PIN block was not accepted' });
  await fails(pin(), 'ThrottlingException', 429);
});

test('a throttled client, which tries again by itself when it is let to', async () => {
  const once = controlClient(daemon, 'operator');
  await fails3((async () => {
    for (let i = 0; i < 50; i += 1) await once.call('ListAliases', {});
  })(), 'ThrottlingException', 400);
  const patient = controlClient(daemon, 'operator', { maxAttempts: 10 });
  const { $metadata } = await patient.call('ListAliases', {});
  assert.ok($metadata.attempts >= 1);
  once.close();
  patient.close();
});

test('quotas', async () => {
  await fails3((async () => {
    for (let i = 0; i < 10; i += 1) await admin.call('CreateKey', macKey);
  })(), 'ServiceQuotaExceededException', 400);
  await fails3((async () => {
    for (let i = 0; i < 10; i += 1) await admin.call('CreateAlias', { AliasName: `alias/quota/${i}` });
  })(), 'ServiceQuotaExceededException', 400);
});

// comes asks again until the promise fails with this name, or with none.
const comes = (name, ask) => until(`the answer is ${name}`, async () => {
  const e = await ask().then(() => null, (failed) => failed);
  return e === null ? name === '' : (e.code === name || e.name === name);
});

test('500: the audit log cannot be written', async () => {
  const log = path.join(daemon.dir, 'audit');
  fs.renameSync(log, `${log}.away`);
  await comes('InternalServerException', () => macUnder('alias/dev/zak'));
  await fails(macUnder('alias/dev/zak'), 'InternalServerException', 500);
  fs.renameSync(`${log}.away`, log);
  await comes('', () => macUnder('alias/dev/zak'));
});

test('500: a row of the database was changed', async () => {
  execFileSync(process.env.GO || 'go', ['run', path.join(__dirname, 'tamper.go'), path.join(daemon.dir, 'keyd.db'), 'alias/dev/zpk', 'alias/dev/kek']);
  await fails3(admin.call('GetAlias', { AliasName: 'alias/dev/zpk' }), 'InternalServerException', 500);
});

test('503: the token is away', async () => {
  const tokens = path.join(daemon.dir, 'tokens');
  fs.renameSync(tokens, `${tokens}.away`);
  const derived = () => data.call('GenerateMac', {
    KeyIdentifier: 'alias/dev/bdk-aes', MessageData: '00', GenerationAttributes: { DukptCmac: { KeySerialNumber: '123456789012345600000001', DukptKeyVariant: 'REQUEST' } },
  });
  await comes('ServiceUnavailableException', derived);
  await fails(derived(), 'ServiceUnavailableException', 503);
  await fails3(admin.call('StopKeyUsage', { KeyIdentifier: 'alias/dev/bdk-aes' }), 'ServiceUnavailableException', 503);
});
