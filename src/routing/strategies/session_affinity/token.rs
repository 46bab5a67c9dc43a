//! Session ids: what is issued to clients, and what is accepted from them.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::state::Endpoint;

/// Layout of an id: a version, the endpoint's identity, the signature.
const VERSION: u8 = 1;
const IDENTITY: usize = 8;
const SIGNED: usize = 1 + IDENTITY;
const SIGNATURE: usize = 16;

/// Signs session ids and checks them. An id names an endpoint without telling its address, and cannot be made up.
#[derive(Clone)]
pub(super) struct Signer {
    mac: Hmac<Sha256>,
    /// Makes identities differ from key to key, so that nobody can look an address up by trying all.
    seed: u64,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// With this key, of any length.
    pub(super) fn new(key: &[u8]) -> Self {
        #[expect(clippy::expect_used, reason = "the only error is a length, and any will do")]
        let mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        let digest = mac.clone().chain_update(b"fairlead session identity").finalize().into_bytes();
        let seed = digest.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        Self { mac, seed }
    }

    /// With a key that only this process knows: 256 bits from the generators that the standard library seeds from the
    /// operating system.
    pub(super) fn random() -> Self {
        let word = || RandomState::new().build_hasher().finish().to_le_bytes();
        Self::new(&[word(), word(), word(), word()].concat())
    }

    /// Who an endpoint is: its address and its name. Another pod at the same address is another endpoint, and the same
    /// pod after a restart of ours is the same.
    pub(super) fn identity(&self, endpoint: &Endpoint) -> u64 {
        let address = xxh3_64_with_seed(endpoint.address_text().as_bytes(), self.seed);
        xxh3_64_with_seed(endpoint.spec.name.as_bytes(), address)
    }

    /// The id of sessions at an endpoint.
    pub(super) fn issue(&self, endpoint: &Endpoint) -> String {
        let mut id = Vec::with_capacity(SIGNED + SIGNATURE);
        id.push(VERSION);
        id.extend(self.identity(endpoint).to_be_bytes());
        let signature = self.mac.clone().chain_update(&id).finalize().into_bytes();
        id.extend(signature.iter().take(SIGNATURE));
        URL_SAFE_NO_PAD.encode(id)
    }

    /// The identity that an id names; `None` unless we signed it. The comparison takes the same time whatever differs.
    pub(super) fn verify(&self, id: &str) -> Option<u64> {
        let mut buffer = [0; SIGNED + SIGNATURE + 3];
        let length = URL_SAFE_NO_PAD.decode_slice(id, &mut buffer).ok()?;
        let (signed, signature) = buffer.get(..length)?.split_at_checked(SIGNED)?;
        if signature.len() != SIGNATURE || signed.first() != Some(&VERSION) {
            return None;
        }
        self.mac.clone().chain_update(signed).verify_truncated_left(signature).ok()?;
        Some(signed.iter().skip(1).fold(0, |identity, byte| identity << 8 | u64::from(*byte)))
    }
}

/// The address in an id of AIBrix: the standard base64 of `host:port`.
pub(super) fn plain_address(id: &str) -> Option<SocketAddr> {
    const LENGTH_MAX: usize = 72;
    let mut buffer = [0; LENGTH_MAX / 4 * 3];
    let length = (id.len() <= LENGTH_MAX).then(|| STANDARD.decode_slice(id, &mut buffer).ok())??;
    std::str::from_utf8(buffer.get(..length)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use crate::routing::conformance::fleet;

    use super::*;

    #[test]
    fn an_id_names_its_endpoint_to_whoever_has_the_key() {
        let fleet = fleet(2);
        let (signer, replica) = (Signer::new(b"secret"), Signer::new(b"secret"));
        let id = signer.issue(&fleet[0]);
        assert_eq!(replica.verify(&id), Some(replica.identity(&fleet[0])));
        assert_ne!(signer.identity(&fleet[0]), signer.identity(&fleet[1]));
        assert_eq!(Signer::new(b"other").verify(&id), None);
        assert_eq!(Signer::random().verify(&Signer::random().issue(&fleet[0])), None);
    }

    #[test]
    fn an_id_with_any_bit_changed_is_refused() {
        let signer = Signer::new(b"secret");
        let id = URL_SAFE_NO_PAD.decode(signer.issue(&fleet(1)[0])).unwrap();
        for bit in 0..id.len() * 8 {
            let mut forged = id.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(signer.verify(&URL_SAFE_NO_PAD.encode(forged)), None, "bit {bit}");
        }
        for forged in ["", "AQ", "%%%", &URL_SAFE_NO_PAD.encode(&id[..20]), &"A".repeat(5000)] {
            assert_eq!(signer.verify(forged), None, "{forged}");
        }
    }

    #[test]
    fn an_id_does_not_tell_the_address() {
        let fleet = fleet(1);
        let id = Signer::new(b"secret").issue(&fleet[0]);
        assert_eq!(plain_address(&id), None);
        assert_ne!(Signer::new(b"a").identity(&fleet[0]), Signer::new(b"b").identity(&fleet[0]));
    }

    #[test]
    fn ids_of_aibrix_are_read() {
        assert_eq!(plain_address("MTAuMC4wLjE6ODAwMA=="), Some("10.0.0.1:8000".parse().unwrap()));
        assert_eq!(plain_address(&STANDARD.encode("[2001:db8::1]:8000")), Some("[2001:db8::1]:8000".parse().unwrap()));
        for not_one in ["", "MTAuMC4wLjE6ODAwMA", "!!", &STANDARD.encode("10.0.0.1"), &"A".repeat(4096)] {
            assert_eq!(plain_address(not_one), None, "{not_one}");
        }
    }
}
