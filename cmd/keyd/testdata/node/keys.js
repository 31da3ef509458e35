// Keys of the tests. Their values are published: sections 10 and 16 of the API,
// and NIST SP 800-38A for data. All are under alias/dev/kek of `keyd dev`.
'use strict';

const blocks = {
  zpk: 'D0112P0TB00E00006BC2C9EAB2B50AE38AFDF868E37E3EFA6366CFA3C395E41C16424E3AF97711CCE31D5DA7E09DA9756F7642D998EC51F0',
  unionPay: 'D0112M1TC00E0000497D13DB4EF4A6B3EB9A732033ED6CEFC1DFAC725F867EAE51FBF5FE71984E4AD71D72749BBEACC170545F9CF62DCE26',
  data: 'D0144D0AB00E00005407409C4E34F342D6E6711D4FE8C7EF892B299511A877C130ADFD0304C30C810850FFA2BA95C157CEB2BDE1A95114F94C25071878C4A7558F49213F9DD4C74F',
};

const both = { Encrypt: true, Decrypt: true, Wrap: true, Unwrap: true };
const mac = { Generate: true, Verify: true };

const attributes = (KeyUsage, KeyAlgorithm, KeyModesOfUse) => ({ KeyUsage, KeyAlgorithm, KeyModesOfUse, KeyClass: 'SYMMETRIC_KEY' });

const imported = (block, more = {}) => ({
  KeyMaterial: { Tr31KeyBlock: { WrappingKeyIdentifier: 'alias/dev/kek', WrappedKeyBlock: block } }, ...more,
});

module.exports = { blocks, both, mac, attributes, imported };
