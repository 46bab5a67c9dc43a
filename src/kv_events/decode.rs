//! A batch of events, as vLLM and SGLang publish them: each event a map with the key `type`, or, from older engines, an
//! array that begins with its name. Fields may be missing or unknown; an event that cannot be read spoils no other.

use crate::index::{Tier, extra_digest, salt_digest};

use super::msgpack::{Item, Reader};

/// Largest payload; a larger one is not looked at.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// Events of one batch that are looked at.
const EVENTS_MAX: usize = 1 << 16;
/// Longest name of an adapter.
const ADAPTER_BYTES_MAX: usize = 1024;

/// A readable payload.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// What happened, in order.
    pub events: Vec<Event>,
    /// Events of kinds that we do not know, which changes nothing.
    pub unknown: usize,
}

/// What happened in an engine's cache.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Blocks were stored.
    Stored(Stored),
    /// Blocks were removed.
    Removed {
        /// The engine's hashes.
        keys: Vec<u64>,
        /// From where; `None` where the engine does not say.
        tier: Option<Tier>,
        /// Group of the cache, where the engine has several.
        group: Option<u64>,
        /// In a place that is not this engine's own.
        is_remote: bool,
    },
    /// The cache was emptied.
    Cleared,
    /// One that could not be read: nothing is known any longer.
    Unreadable,
}

/// Blocks that follow each other, as they were stored.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stored {
    /// The engine's hashes.
    pub keys: Vec<u64>,
    /// The engine's hash of the block before them.
    pub parent: Option<u64>,
    /// The tokens of all of them.
    pub tokens: Vec<u32>,
    /// Tokens of one.
    pub block_tokens: u32,
    /// What goes into the hash of each beside its tokens, in our form; 0 or nothing where there is nothing.
    pub extras: Vec<u64>,
    /// The adapter.
    pub adapter: Option<String>,
    /// They belong to an adapter that the engine does not name.
    pub is_anonymous: bool,
    /// Where they are; `None` where the engine does not say.
    pub tier: Option<Tier>,
    /// Group of the cache, where the engine has several.
    pub group: Option<u64>,
    /// Every token of the prefix is needed, as in full attention; not so in a sliding window.
    pub is_full: bool,
    /// In a place that is not this engine's own.
    pub is_remote: bool,
}

/// Fields of `BlockStored` in the order of the array form.
const STORED: [&str; 11] = [
    "block_hashes",
    "parent_block_hash",
    "token_ids",
    "block_size",
    "lora_id",
    "medium",
    "lora_name",
    "extra_keys",
    "group_idx",
    "kv_cache_spec_kind",
    "kv_cache_spec_sliding_window",
];
/// Fields of `BlockRemoved` in the order of the array form.
const REMOVED: [&str; 3] = ["block_hashes", "medium", "group_idx"];

/// Reads a payload: `[time, events, rank]`, the rank perhaps missing. `None` if it is nothing of the kind.
pub fn decode(payload: &[u8]) -> Option<Batch> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return None;
    }
    let mut reader = Reader::new(payload);
    let Item::Array(2..) = reader.next()? else { return None };
    reader.skip()?;
    let Item::Array(count) = reader.next()? else { return None };
    let mut batch = Batch::default();
    for at in 0..count as usize {
        let event = reader.value()?;
        if at >= EVENTS_MAX {
            batch.events.push(Event::Unreadable);
            break;
        }
        match Fields::of(event) {
            Some(fields) if !fields.is_known() => batch.unknown += 1,
            fields => batch.events.push(fields.and_then(|fields| read_event(&fields)).unwrap_or(Event::Unreadable)),
        }
    }
    Some(batch)
}

/// One of a known kind; `None` if it cannot be read.
fn read_event(fields: &Fields<'_>) -> Option<Event> {
    match fields.kind {
        b"BlockStored" => Some(Event::Stored(read_stored(fields)?)),
        b"BlockRemoved" => {
            let keys = read_keys(fields.get("block_hashes", &REMOVED)?)?;
            let tier = fields.get("medium", &REMOVED).and_then(read_tier);
            let group = fields.get("group_idx", &REMOVED).and_then(read_number);
            Some(Event::Removed { keys, tier, group, is_remote: fields.is_remote(&REMOVED) })
        }
        b"AllBlocksCleared" => Some(Event::Cleared),
        _ => None,
    }
}

/// An event in either form.
struct Fields<'a> {
    kind: &'a [u8],
    values: Reader<'a>,
    is_map: bool,
    count: u32,
}

impl<'a> Fields<'a> {
    fn of(mut reader: Reader<'a>) -> Option<Self> {
        match reader.next()? {
            Item::Array(count @ 1..) => {
                let Item::Text(kind) = reader.next()? else { return None };
                Some(Self { kind, values: reader, is_map: false, count: count - 1 })
            }
            Item::Map(count) => {
                let mut fields = Self { kind: b"", values: reader, is_map: true, count };
                let Item::Text(kind) = fields.get("type", &[])?.next()? else { return None };
                fields.kind = kind;
                Some(fields)
            }
            _ => None,
        }
    }

    fn is_known(&self) -> bool {
        [&b"BlockStored"[..], b"BlockRemoved", b"AllBlocksCleared"].contains(&self.kind)
    }

    /// The value of a field; `None` if it is not there, or nil.
    fn get(&self, name: &str, order: &[&str]) -> Option<Reader<'a>> {
        let mut values = self.values;
        if !self.is_map {
            let at = order.iter().position(|known| *known == name)?;
            if at >= self.count as usize {
                return None;
            }
            for _ in 0..at {
                values.skip()?;
            }
            return not_nil(values.value()?);
        }
        for _ in 0..self.count {
            let (mut key, value) = (values.value()?, values.value()?);
            if key.next() == Some(Item::Text(name.as_bytes())) {
                return not_nil(value);
            }
        }
        None
    }

    fn is_remote(&self, order: &[&str]) -> bool {
        let locality = self.get("locality", order).and_then(|mut value| value.next());
        locality == Some(Item::Text(b"REMOTE"))
    }
}

fn not_nil(value: Reader<'_>) -> Option<Reader<'_>> {
    let mut peek = value;
    (peek.next() != Some(Item::Nil)).then_some(value)
}

fn read_stored(fields: &Fields<'_>) -> Option<Stored> {
    let field = |name| fields.get(name, &STORED);
    let keys = read_keys(field("block_hashes")?)?;
    let parent = match field("parent_block_hash") {
        Some(mut key) => Some(read_key(&mut key)?),
        None => None,
    };
    let tokens = read_tokens(field("token_ids")?)?;
    let block_tokens = u32::try_from(read_number(field("block_size")?)?).ok()?;
    // Who counts otherwise has groups that we cannot follow; hashing them would be guessing.
    if block_tokens == 0 || keys.len().checked_mul(block_tokens as usize)? != tokens.len() {
        return None;
    }
    let adapter = match field("lora_name").map(|mut name| name.next()) {
        Some(Some(Item::Text(name))) if name.len() <= ADAPTER_BYTES_MAX => {
            Some(String::from_utf8_lossy(name).into_owned())
        }
        Some(_) => return None,
        None => None,
    };
    let mut extras = match field("extra_keys") {
        Some(extras) => read_extras(extras, adapter.as_deref(), parent.is_none())?,
        None => Vec::new(),
    };
    // SGLang's way to say it.
    if let Some(Item::Text(salt)) = field("cache_salt").and_then(|mut salt| salt.next())
        && parent.is_none()
    {
        extras = vec![salt_digest(&String::from_utf8_lossy(salt))];
    }
    let kind = field("kv_cache_spec_kind").and_then(|mut kind| kind.next());
    Some(Stored {
        is_full: !matches!(kind, Some(Item::Text(kind)) if is_partial(kind)),
        is_anonymous: adapter.is_none() && field("lora_id").is_some(),
        tier: field("medium").and_then(read_tier),
        group: field("group_idx").and_then(read_number),
        is_remote: fields.is_remote(&STORED),
        keys,
        parent,
        tokens,
        block_tokens,
        extras,
        adapter,
    })
}

/// Kinds of caches in which less than the whole prefix is kept.
fn is_partial(kind: &[u8]) -> bool {
    [&b"sliding"[..], b"mamba", b"chunked"].iter().any(|part| memchr::memmem::find(kind, part).is_some())
}

fn read_number(mut value: Reader<'_>) -> Option<u64> {
    match value.next()? {
        Item::Int(number) => Some(number),
        _ => None,
    }
}

fn read_tier(mut value: Reader<'_>) -> Option<Tier> {
    let Item::Text(medium) = value.next()? else { return None };
    Some(match medium {
        b"GPU" => Tier::Device,
        [b'C', b'P', b'U', ..] => Tier::Host,
        _ => Tier::Storage,
    })
}

/// A block hash in whatever form: a number as it is, of a digest the last 8 bytes, which is vLLM's own short form of it.
fn read_key(value: &mut Reader<'_>) -> Option<u64> {
    match value.next()? {
        Item::Int(number) => Some(number),
        Item::Bytes(digest) | Item::Text(digest) => Some(match digest.last_chunk::<8>() {
            Some(last) => u64::from_be_bytes(*last),
            None => extra_digest(digest),
        }),
        _ => None,
    }
}

fn read_keys(mut value: Reader<'_>) -> Option<Vec<u64>> {
    let Item::Array(count) = value.next()? else { return None };
    let mut keys = Vec::with_capacity((count as usize).min(value.left()));
    for _ in 0..count {
        keys.push(read_key(&mut value)?);
    }
    Some(keys)
}

fn read_tokens(mut value: Reader<'_>) -> Option<Vec<u32>> {
    let Item::Array(count) = value.next()? else { return None };
    let mut tokens = Vec::with_capacity((count as usize).min(value.left()));
    for _ in 0..count {
        match value.next()? {
            Item::Int(token) => tokens.push(token as u32),
            _ => return None,
        }
    }
    Some(tokens)
}

/// One entry for each block: nil, or a list of adapter name, salt and media.
fn read_extras(mut value: Reader<'_>, adapter: Option<&str>, is_first: bool) -> Option<Vec<u64>> {
    let Item::Array(count) = value.next()? else { return None };
    let mut extras = Vec::with_capacity((count as usize).min(value.left()));
    for at in 0..count {
        let mut entry = value.value()?;
        let digest = match entry.next()? {
            Item::Nil => 0,
            Item::Array(count) => read_extra(entry, count, adapter, is_first && at == 0)?,
            _ => return None,
        };
        extras.push(digest);
    }
    Some(extras)
}

fn read_extra(mut entry: Reader<'_>, count: u32, adapter: Option<&str>, is_first: bool) -> Option<u64> {
    let mut rest = Vec::new();
    let mut only_text = None;
    let mut is_named = false;
    for _ in 0..count {
        let part = entry.skip()?;
        let text = match Reader::new(part).next() {
            Some(Item::Text(text)) => Some(text),
            _ => None,
        };
        if !is_named && adapter.is_some() && text == adapter.map(str::as_bytes) {
            is_named = true;
            continue;
        }
        only_text = text.filter(|_| rest.is_empty());
        rest.extend_from_slice(part);
    }
    Some(match only_text {
        _ if rest.is_empty() => 0,
        Some(salt) if is_first => salt_digest(&String::from_utf8_lossy(salt)),
        _ => extra_digest(&rest),
    })
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
