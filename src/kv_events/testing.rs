//! Batches for tests: those of a real engine, and some made by hand.

use serde_json::Value;

const FIXTURE: &str = include_str!("../../tests/fixtures/vllm-0.32.0-kv-events.json");

/// A message of a real vLLM.
pub(super) struct Recorded {
    pub(super) sequence: u64,
    pub(super) payload: Vec<u8>,
    /// What it says, by another reader.
    pub(super) decoded: Value,
}

pub(super) fn bytes_of_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks_exact(2).map(byte).collect()
}

/// What a real vLLM sent, in order.
pub(super) fn fixture() -> Vec<Recorded> {
    let text: Value = serde_json::from_str(FIXTURE).unwrap();
    let recorded = |frame: &Value| Recorded {
        sequence: u64::from_str_radix(frame["seq_hex"].as_str().unwrap(), 16).unwrap(),
        payload: bytes_of_hex(frame["payload_hex"].as_str().unwrap()),
        decoded: frame["decoded"].clone(),
    };
    text["frames"].as_array().unwrap().iter().map(recorded).collect()
}

/// Writes `MessagePack`.
pub(super) struct Pack(Vec<u8>);

impl Pack {
    /// The beginning of a batch of so many events.
    pub(super) fn batch(events: u8) -> Self {
        let mut pack = Self(vec![0x93, 0xcb, 0, 0, 0, 0, 0, 0, 0, 0]);
        pack.array(events);
        pack
    }

    /// The end of a batch.
    pub(super) fn rank(mut self, rank: u8) -> Vec<u8> {
        self.0.push(rank);
        self.0
    }

    /// A batch without rank.
    pub(super) fn bytes(mut self) -> Vec<u8> {
        self.0[0] = 0x92;
        self.0
    }

    pub(super) fn array(&mut self, count: u8) -> &mut Self {
        self.0.extend([0xdc, 0, count]);
        self
    }

    pub(super) fn map(&mut self, pairs: u8) -> &mut Self {
        self.0.push(0x80 | pairs);
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.0.extend([0xd9, text.len() as u8]);
        self.0.extend(text.bytes());
        self
    }

    pub(super) fn int(&mut self, number: u64) -> &mut Self {
        self.0.push(0xcf);
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn negative(&mut self, number: i64) -> &mut Self {
        self.0.push(0xd3);
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn nil(&mut self) -> &mut Self {
        self.0.push(0xc0);
        self
    }

    /// Blocks of two tokens stored behind a parent, as a map.
    pub(super) fn stored(&mut self, parent: Option<u64>, keys: &[u64], tokens: &[u64]) -> &mut Self {
        self.map(5).text("type").text("BlockStored").text("block_hashes").array(keys.len() as u8);
        for key in keys {
            self.int(*key);
        }
        self.text("parent_block_hash");
        match parent {
            Some(parent) => self.int(parent),
            None => self.nil(),
        };
        self.text("token_ids").array(tokens.len() as u8);
        for token in tokens {
            self.int(*token);
        }
        self.text("block_size").int((tokens.len() / keys.len().max(1)) as u64)
    }

    pub(super) fn removed(&mut self, key: u64) -> &mut Self {
        self.map(2).text("type").text("BlockRemoved").text("block_hashes").array(1).int(key)
    }
}
