//! The prefix index beside a naive map and the crate `kv-index`, and the way from a body to its hashes.
//!
//! A token is four bytes, a block 64 tokens. *Same*: every endpoint holds the whole prompt. *Spread*: all hold its
//! first tenth, a few of them more, one all of it. *Cold*: nobody holds anything of it, among others' prompts.

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::sync::{Mutex, RwLock};

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use fairlead::domain::{EndpointId, Moment};
use fairlead::index::{BLOCK_BYTES, Chain, Chainer, PrefixIndex, Root, Settings};
use fairlead::openai::{Api, canonical, head};
use kv_index::{ChainBlockMap, ChainIndex, ContentHash, SequenceHash, StoredBlock};

fn main() {
    divan::main();
}

const TOKENS: [usize; 3] = [1_000, 10_000, 100_000];
const FLEETS: [u32; 2] = [64, 1_000];

fn blocks(tokens: usize) -> usize {
    tokens / (BLOCK_BYTES / 4)
}

/// Distinct chains for distinct seeds.
fn chain(seed: u64, blocks: usize) -> Vec<u64> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..blocks).map(|_| rng.u64(1..)).collect()
}

/// What the three have in common.
trait Peer: Sync {
    fn insert(&self, endpoint: u32, hashes: &[u64]);
    /// Holders found.
    fn find(&self, hashes: &[u64], fleet: u32) -> usize;
}

struct Ours(PrefixIndex);

impl Peer for Ours {
    fn insert(&self, endpoint: u32, hashes: &[u64]) {
        self.0.commit(EndpointId { slot: endpoint, generation: 0 }, &Chain::of_hashes(hashes), Moment::from_micros(1));
    }

    fn find(&self, hashes: &[u64], fleet: u32) -> usize {
        // The copy into a chain is what hashing a prompt ends with; here it costs us some 2 % more.
        let found = self.0.matches(&Chain::of_hashes(hashes));
        (0..fleet).filter(|slot| found.blocks(EndpointId { slot: *slot, generation: 0 }) > 0).count()
    }
}

#[derive(Default)]
struct Naive(RwLock<HashMap<u64, HashSet<u32>>>);

impl Peer for Naive {
    fn insert(&self, endpoint: u32, hashes: &[u64]) {
        let Ok(mut map) = self.0.write() else { return };
        for hash in hashes {
            map.entry(*hash).or_default().insert(endpoint);
        }
    }

    fn find(&self, hashes: &[u64], _: u32) -> usize {
        let Ok(map) = self.0.read() else { return 0 };
        let mut depth: HashMap<u32, usize> = HashMap::new();
        for (at, hash) in hashes.iter().enumerate() {
            let Some(holders) = map.get(hash) else { break };
            for holder in holders {
                if at == 0 {
                    depth.insert(*holder, 1);
                } else if let Some(blocks) = depth.get_mut(holder).filter(|blocks| **blocks == at) {
                    *blocks += 1;
                }
            }
        }
        depth.len()
    }
}

struct KvIndex {
    index: ChainIndex,
    maps: Vec<Mutex<ChainBlockMap>>,
}

impl KvIndex {
    fn new() -> Self {
        let index = ChainIndex::with_max_workers(1024);
        let maps = (0..1000).map(|_| Mutex::default()).collect();
        for worker in 0..1000 {
            assert!(index.intern_worker(&worker.to_string()).is_ok_and(|id| id == worker));
        }
        Self { index, maps }
    }
}

impl Peer for KvIndex {
    fn insert(&self, endpoint: u32, hashes: &[u64]) {
        let block = |hash: &u64| StoredBlock { seq_hash: SequenceHash(*hash), content_hash: ContentHash(*hash) };
        let stored: Vec<_> = hashes.iter().map(block).collect();
        let Some(Ok(mut map)) = self.maps.get(endpoint as usize).map(Mutex::lock) else { return };
        assert!(self.index.apply_stored(endpoint, &stored, None, &mut map).is_ok());
    }

    fn find(&self, hashes: &[u64], _: u32) -> usize {
        let mut found = 0;
        self.index.score_into(hashes, |hash| *hash, false, |_, depth| found += usize::from(depth > 0));
        found
    }
}

fn ours() -> Ours {
    let settings = Settings { bytes_max: usize::MAX, endpoint_blocks: usize::MAX, ..Settings::default() };
    Ours(PrefixIndex::new(settings))
}

/// Other prompts, so that no table fits a cache.
fn crowd(peer: &impl Peer) {
    for seed in 0..1000 {
        peer.insert(seed as u32 % 64, &chain(1_000_000 + seed, 100));
    }
}

macro_rules! bench_peers {
    ($($peer:ident: $make:expr;)+) => {$(
        mod $peer {
            use super::*;

            fn find(bencher: Bencher<'_, '_>, tokens: usize, fleet: u32, held_by: impl Fn(u32, usize) -> usize, asked: u64) {
                let peer = $make;
                crowd(&peer);
                let hashes = chain(7, blocks(tokens));
                for endpoint in 0..fleet {
                    let held = held_by(endpoint, hashes.len()).min(hashes.len());
                    peer.insert(endpoint, hashes.get(..held).unwrap_or_default());
                }
                let asked = if asked == 7 { hashes } else { chain(asked, blocks(tokens)) };
                bencher.bench(|| peer.find(black_box(&asked), fleet));
            }

            #[divan::bench(args = TOKENS, consts = FLEETS, threads = [1, 2], sample_count = 30)]
            fn same<const FLEET: u32>(bencher: Bencher<'_, '_>, tokens: usize) {
                find(bencher, tokens, FLEET, |_, blocks| blocks, 7);
            }

            #[divan::bench(args = TOKENS, consts = FLEETS, sample_count = 30)]
            fn spread<const FLEET: u32>(bencher: Bencher<'_, '_>, tokens: usize) {
                let held = |endpoint: u32, blocks: usize| match endpoint {
                    0 => blocks,
                    1..8 => blocks / 10 + blocks / 10 * endpoint as usize,
                    _ => blocks / 10,
                };
                find(bencher, tokens, FLEET, held, 7);
            }

            #[divan::bench(args = TOKENS, consts = [64_u32], sample_count = 30)]
            fn cold<const FLEET: u32>(bencher: Bencher<'_, '_>, tokens: usize) {
                find(bencher, tokens, FLEET, |_, blocks| blocks, 8);
            }

            /// A prompt that nobody has, entered for one endpoint.
            #[divan::bench(args = TOKENS, threads = [1, 2], sample_count = 30, sample_size = 4)]
            fn insert(bencher: Bencher<'_, '_>, tokens: usize) {
                let peer = $make;
                crowd(&peer);
                let seed = std::sync::atomic::AtomicU64::new(10_000);
                let next = || seed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                bencher
                    .with_inputs(|| { let seed = next(); (seed as u32 % 64, chain(seed, blocks(tokens))) })
                    .counter(ItemsCount::new(blocks(tokens)))
                    .bench_refs(|(endpoint, hashes)| peer.insert(*endpoint, hashes));
            }

            /// The same prompt again.
            #[divan::bench(args = TOKENS, sample_count = 30)]
            fn insert_again(bencher: Bencher<'_, '_>, tokens: usize) {
                let peer = $make;
                crowd(&peer);
                let hashes = chain(7, blocks(tokens));
                bencher.bench(|| peer.insert(3, black_box(&hashes)));
            }
        }
    )+};
}

bench_peers! {
    fairlead_index: ours();
    naive: Naive::default();
    kv_index_crate: KvIndex::new();
}

fn body(bytes: usize, phrase: &str) -> Vec<u8> {
    let mut body = String::from("{\"model\":\"llama\",\"messages\":[{\"role\":\"system\",\"content\":\"be brief\"}");
    while body.len() < bytes {
        body.push_str(",{\"role\":\"user\",\"content\":\"");
        let end = bytes.min(body.len() + 4096);
        while body.len() < end {
            body.push_str(phrase);
        }
        body.push_str("\"}");
    }
    body.push_str("],\"stream\":true}");
    body.into_bytes()
}

const PLAIN: &str = "the quick brown fox jumps over the lazy dog, and then it rests a while. ";
const ESCAPES: &str = "    let \\\"x\\\" = a[i];\\n\\tif x > 0 { say(\\\"日本\\\\n\\\"); }\\n";

/// From the head of a body to its hashes.
#[divan::bench(args = [("plain", PLAIN), ("escapes", ESCAPES)])]
fn hash_220_kib(bencher: Bencher<'_, '_>, (_, phrase): (&str, &str)) {
    let body = body(220 << 10, phrase);
    let Ok(head) = head::read(Api::Chat, None, &body) else { return };
    bencher.counter(BytesCount::new(body.len())).bench(|| hash(black_box(&head)).len());
}

/// All of it: head, hashes, what 64 endpoints hold (one all, others a tenth), pending, committed.
#[divan::bench(args = [("plain", PLAIN), ("escapes", ESCAPES)])]
fn whole_220_kib(bencher: Bencher<'_, '_>, (_, phrase): (&str, &str)) {
    let body = body(220 << 10, phrase);
    let Ours(index) = ours();
    let id = |slot| EndpointId { slot, generation: 0 };
    if let Ok(head) = head::read(Api::Chat, None, &body) {
        let whole = hash(&head);
        let tenth = Chain::of_hashes(whole.hashes().get(..whole.len() / 10).unwrap_or_default());
        (0..64).for_each(|slot| index.commit(id(slot), if slot == 0 { &whole } else { &tenth }, Moment::EPOCH));
    }
    bencher.counter(BytesCount::new(body.len())).bench(|| {
        let head = head::read(Api::Chat, None, black_box(&body)).ok()?;
        let chain = hash(&head);
        let found = index.matches(&chain);
        let best = (0..64).map(id).max_by_key(|id| found.blocks(*id))?;
        index.pend(best, &chain, Moment::EPOCH);
        index.commit(best, &chain, Moment::EPOCH);
        Some(best)
    });
}

fn hash(head: &head::Head<'_>) -> Chain {
    let mut chainer = Chainer::new(&Root { model: "llama", ..Root::default() }, 4096, head.prompt_size().text_bytes);
    canonical::write(head, |piece| chainer.push(piece));
    chainer.finish()
}

/// What an index of a million blocks takes.
#[divan::bench(args = [1_u32, 16], sample_count = 1, sample_size = 1)]
fn bytes_of_a_million_blocks(bencher: Bencher<'_, '_>, holders: u32) {
    bencher.bench(|| {
        let ours = ours();
        for seed in 0..10_000 {
            let hashes = chain(seed, 100);
            (0..holders).for_each(|holder| ours.insert((seed as u32 + holder) % 64, &hashes));
        }
        let stats = ours.0.stats();
        let per_block = stats.bytes as f64 / stats.blocks as f64;
        eprintln!("{} blocks, held {} times: {per_block:.1} bytes a block", stats.blocks, stats.held);
    });
}
