"""boto3 against a daemon of one's own: `make test-python`. Not part of `make test`."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

ROOT = pathlib.Path(__file__).parents[4]
KEYD = os.environ["KEYD"]
REGION = "xx-keyd-1"
MESSAGE = "00112233445566778899AABBCCDDEEFF"
ALG3 = {"Algorithm": "ISO9797_ALGORITHM3"}
# AES-128 of NIST SP 800-38A, appendix F, under alias/dev/kek.
DATA_BLOCK = "D0144D0AB00E00005407409C4E34F342D6E6711D4FE8C7EF892B299511A877C130ADFD0304C30C810850FFA2BA95C157CEB2BDE1A95114F94C25071878C4A7558F49213F9DD4C74F"


class Daemon:
    """`keyd dev` in a folder of its own; change edits its configuration first."""

    def __init__(self, change=None):
        self.folder = tempfile.TemporaryDirectory(prefix="keyd-python-")
        self.dir = pathlib.Path(self.folder.name)
        self.start()
        if change:
            self.stop()
            config = self.dir / "keyd.toml"
            config.write_text(change(config.read_text()))
            self.start()

    def start(self):
        self.process = subprocess.Popen([KEYD, "dev", "--dir", self.dir, "--no-sim"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while not (self.dir / "dev.json").exists():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("keyd dev did not start")
            time.sleep(0.05)
        self.dev = json.loads((self.dir / "dev.json").read_text())

    def stop(self):
        self.process.terminate()
        if self.process.wait(60) != 0:
            raise RuntimeError("keyd dev ended badly")

    def remove(self):
        self.stop()
        self.folder.cleanup()

    def client(self, name, plane):
        of = self.dev["clients"][name]
        config = Config(
            region_name=REGION, signature_version=UNSIGNED, client_cert=(of["cert"], of["key"]),
            retries={"mode": "standard", "total_max_attempts": 1},
        )
        service = {"data": "payment-cryptography-data", "control": "payment-cryptography"}[plane]
        return boto3.client(service, endpoint_url=self.dev["api_url"], verify=self.dev["ca_cert"], config=config)


class Boto3(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon()
        cls.data = cls.daemon.client("switch", "data")
        cls.control = cls.daemon.client("admin", "control")

    @classmethod
    def tearDownClass(cls):
        cls.daemon.remove()

    def fails(self, code, status, call, **arguments):
        with self.assertRaises(ClientError) as caught:
            call(**arguments)
        answer = caught.exception.response
        self.assertEqual((answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]), (code, status))
        self.assertTrue(answer["Error"]["Message"])
        return answer

    def test_data_key_in_the_path(self):
        made = self.control.import_key(KeyMaterial={"Tr31KeyBlock": {"WrappingKeyIdentifier": "alias/dev/kek", "WrappedKeyBlock": DATA_BLOCK}})
        arn = made["Key"]["KeyArn"]
        self.control.create_alias(AliasName="alias/sdk/data/key", KeyArn=arn)
        for key in (arn, "alias/sdk/data/key"):
            out = self.data.encrypt_data(KeyIdentifier=key, PlainText="6BC1BEE22E409F96E93D7E117393172A", EncryptionAttributes={"Symmetric": {"Mode": "ECB"}})
            self.assertEqual(out["CipherText"], "3AD77BB40D7A3660A89ECAF32466EF97")

    def test_errors(self):
        verify = {"KeyIdentifier": "alias/dev/zak", "MessageData": MESSAGE, "Mac": "0011223344556677", "VerificationAttributes": ALG3}
        wrong = self.fails("VerificationFailedException", 400, self.data.verify_mac, **verify)
        self.assertEqual(wrong["Reason"], "INVALID_MAC")
        unfit = self.fails("ValidationException", 400, self.data.generate_mac, KeyIdentifier="alias/dev/zpk", MessageData=MESSAGE, GenerationAttributes=ALG3)
        self.assertEqual(unfit["fieldList"][0]["path"], "KeyIdentifier")
        none = self.fails("ResourceNotFoundException", 404, self.data.generate_mac, KeyIdentifier="alias/dev/none", MessageData=MESSAGE, GenerationAttributes=ALG3)
        self.assertEqual(none["ResourceId"], "alias/dev/none")
        self.fails("AccessDeniedException", 403, self.daemon.client("nobody", "data").verify_mac, **verify)
        self.fails("ResourceNotFoundException", 400, self.control.get_alias, AliasName="alias/dev/none")
        self.fails("AccessDeniedException", 400, self.daemon.client("switch", "control").stop_key_usage, KeyIdentifier="alias/dev/zpk")
        self.fails("UnknownOperationException", 400, self.control.get_resource_policy, ResourceArn="arn:aws:payment-cryptography:xx-keyd-1:000000000000:key/" + 32 * "0")

    def test_pages(self):
        pages = self.control.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 2})
        self.assertEqual(len([key for page in pages for key in page["Keys"]]), len(self.control.list_keys(MaxResults=100)["Keys"]))


class Docs(unittest.TestCase):
    """The program of docs/API.md, as it stands there."""

    def run_program(self, daemon, url):
        text = (ROOT / "docs" / "API.md").read_text()
        code = text.split("<!-- tested: clients.py -->\n```python\n")[1].split("\n```\n")[0]
        program = daemon.dir / "clients.py"
        program.write_text(code)
        client = daemon.dev["clients"]["switch"]
        return subprocess.run([sys.executable, program, url, daemon.dev["ca_cert"], client["cert"], client["key"]], capture_output=True, text=True)

    def test_program(self):
        daemon = Daemon()
        self.addCleanup(daemon.remove)
        good = self.run_program(daemon, daemon.dev["api_url"])
        self.assertEqual((good.returncode, good.stdout.strip()), (0, "3BF647997E9FAFC4"), good.stderr)
        forgotten = self.run_program(daemon, "")
        self.assertNotEqual(forgotten.returncode, 0)
        self.assertIn("no endpoint", forgotten.stderr)

    def test_guard(self):
        daemon = Daemon(lambda text: "\n".join("region = 'xx-other-1'" if line.startswith("region = ") else line for line in text.split("\n")))
        self.addCleanup(daemon.remove)
        other = self.run_program(daemon, daemon.dev["api_url"])
        self.assertNotEqual(other.returncode, 0)
        self.assertIn("is not keyd's", other.stderr)


if __name__ == "__main__":
    unittest.main()
