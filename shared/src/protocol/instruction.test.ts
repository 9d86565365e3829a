import { generateKeyPairSync, verify } from 'node:crypto';
import t from 'tap';
import { instructionBytes, isKeyListSigned, publicKeyOf, rawPublicKey, signInstruction } from './instruction.ts';
import { outrider } from './messages.ts';

t.test('an instruction is signed as its bytes, under its own context', async (t) => {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const bytes = signInstruction({ commandId: 'c', verb: 'trigger', motionEpoch: 0 }, 'k1', privateKey);
  const { payload, signature, keyId } = outrider.v1.SignedInstruction.decode(bytes);
  t.equal(keyId, 'k1');
  const raw = rawPublicKey(publicKey);
  t.equal(raw.length, 32);
  const key = publicKeyOf(raw);
  t.ok(key && verify(null, instructionBytes(payload), key, signature));
  t.notOk(key && verify(null, payload, key, signature), 'the bare payload is something else');
  const read = outrider.v1.Instruction.decode(payload);
  t.equal(read.motionEpoch, 0, 'an epoch of 0 is said');
  t.equal(
    outrider.v1.Instruction.decode(new Uint8Array()).motionEpoch ?? undefined,
    undefined,
    'and an absent one not',
  );
});

t.test('what is no key and no signature is refused without a throw', async (t) => {
  t.equal(publicKeyOf(new Uint8Array(31)), undefined);
  t.equal(publicKeyOf(new Uint8Array(0)), undefined);
  const list = outrider.v1.SignedKeyList.create({ payload: new Uint8Array(3), signature: new Uint8Array(64) });
  t.notOk(isKeyListSigned(list, 'no certificate'));
});
