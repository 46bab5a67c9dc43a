//! The workloads that can be named, after those that people publish.

use std::sync::Arc;

use fastrand::Rng;
use smallvec::SmallVec;

use super::super::engine::Blocks;
use super::draw::{skewed, zipf};
use super::{Ids, Pattern, Script, Scripts, Turn};

/// A named kind of traffic.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Name on the command line.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// How the rate moves in an open loop.
    pub pattern: Pattern,
    /// Makes the supply, from the tokens of a block and a generator.
    pub scripts: fn(u64, &mut Rng) -> Box<dyn Scripts>,
}

/// A day of traffic in twenty minutes, from a fifth of the mean rate to nine fifths.
const DAY: Pattern = Pattern::Diurnal { period_s: 1200.0, swing: 0.8 };
/// Five seconds in each forty at five times the rate of the rest.
const BURSTS: Pattern = Pattern::Bursts { every_s: 40.0, length_s: 5.0, factor: 5.0 };

/// Every workload.
///
/// No answer's length is fixed. Requests that begin together would end together, the emptied engine would get the next
/// ones together, and such cohorts only ever merge: with equal lengths, every strategy that looks at load slowly drives
/// the fleet into waves that no real traffic makes.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "shared-prefix-chat",
        summary: "150 system prompts of 6,000 tokens, 5 questions of 1,200 each, answers of about 1,000 (llm-d's b2b-saas)",
        pattern: Pattern::Poisson,
        scripts: shared_prefix_chat,
    },
    Workload {
        name: "conversation",
        summary: "2 to 10 turns with pauses for reading; 20 system prompts of 500 tokens, answers of about 250",
        pattern: Pattern::Poisson,
        scripts: conversation,
    },
    Workload {
        name: "code-generation",
        summary: "own context of 3k to 100k tokens, 2 to 20 turns of about 1,500 new tokens, answers of about 800",
        pattern: Pattern::Poisson,
        scripts: code_generation,
    },
    Workload {
        name: "reasoning",
        summary: "questions of 1,000 tokens behind 250 shared ones, each asked about three times, answers of about 8,000",
        pattern: Pattern::Poisson,
        scripts: reasoning,
    },
    Workload {
        name: "bursts",
        summary: "short chat whose rate is fivefold for 5 of each 40 seconds",
        pattern: BURSTS,
        scripts: short_chat,
    },
    Workload {
        name: "diurnal",
        summary: "conversations whose rate follows a day: from 0.2 to 1.8 times the mean, in 20 minutes",
        pattern: DAY,
        scripts: conversation,
    },
    Workload {
        name: "tenants",
        summary: "20 tenants with system prompts of 2,000 tokens; one sends half of all requests, with long prompts",
        pattern: Pattern::Poisson,
        scripts: tenants,
    },
    Workload {
        name: "adapters",
        summary: "32 LoRA adapters, the first ones far more popular, prompts of about 800 tokens",
        pattern: Pattern::Poisson,
        scripts: adapters,
    },
    Workload {
        name: "small",
        summary: "200 tokens in, about 100 out, nothing in common (a router's load test)",
        pattern: Pattern::Poisson,
        scripts: small,
    },
];

impl Workload {
    /// The workload of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        WORKLOADS.iter().find(|workload| workload.name == name)
    }
}

fn shared_prefix_chat(block: u64, _: &mut Rng) -> Box<dyn Scripts> {
    const PROMPTS: usize = 150;
    const QUESTIONS: usize = 5;
    let mut ids = Ids::default();
    let mut known = Vec::with_capacity(PROMPTS * QUESTIONS);
    for _ in 0..PROMPTS {
        let shared = ids.prefix(6000, block);
        known.extend((0..QUESTIONS).map(|_| Blocks::new(Arc::clone(&shared), ids.range())));
    }
    Box::new(move |rng: &mut Rng| {
        let blocks = rng.choice(&known).cloned().unwrap_or_else(|| Blocks::new(Arc::default(), 0));
        Script::single(0, blocks, 7200, rng.u64(800..=1200))
    })
}

fn conversation(block: u64, _: &mut Rng) -> Box<dyn Scripts> {
    let mut ids = Ids::default();
    let systems: Vec<_> = (0..20).map(|_| ids.prefix(500, block)).collect();
    Box::new(move |rng: &mut Rng| {
        let shared = rng.choice(&systems).cloned().unwrap_or_default();
        let blocks = Blocks::new(shared, ids.range());
        let count = rng.usize(2..=10);
        let turn = |rng: &mut Rng| (skewed(rng, 80.0, 0.9, (5, 4000)), skewed(rng, 200.0, 0.7, (10, 2000)));
        let pause = |rng: &mut Rng| skewed(rng, 8e6, 0.6, (1_000_000, 60_000_000));
        Script { tenant: 0, adapter: None, blocks, turns: turns(rng, 500, count, turn, pause) }
    })
}

fn code_generation(_: u64, _: &mut Rng) -> Box<dyn Scripts> {
    let mut ids = Ids::default();
    Box::new(move |rng: &mut Rng| {
        let blocks = Blocks::new(Arc::default(), ids.range());
        // The mean of the bounds is the published mean.
        let context = rng.u64(3_000..=100_000);
        let count = skewed(rng, 5.0, 0.6, (2, 20)) as usize;
        let turn = |rng: &mut Rng| (skewed(rng, 1000.0, 0.9, (100, 10_000)), skewed(rng, 600.0, 0.75, (50, 4000)));
        let pause = |rng: &mut Rng| skewed(rng, 1e6, 0.5, (100_000, 10_000_000));
        Script { tenant: 0, adapter: None, blocks, turns: turns(rng, context, count, turn, pause) }
    })
}

fn reasoning(block: u64, _: &mut Rng) -> Box<dyn Scripts> {
    let mut ids = Ids::default();
    let system = ids.prefix(250, block);
    // Each question comes three times, apart from one another.
    let mut open: Vec<(u64, u8)> = Vec::new();
    Box::new(move |rng: &mut Rng| {
        if open.len() < 200 {
            open.push((ids.range(), 3));
        }
        let at = rng.usize(..open.len());
        let own = open.get_mut(at).map_or(0, |(own, left)| {
            *left -= 1;
            *own
        });
        open.retain(|(_, left)| *left > 0);
        let blocks = Blocks::new(Arc::clone(&system), own);
        Script::single(0, blocks, 1250, skewed(rng, 6500.0, 0.65, (200, 32_000)))
    })
}

fn short_chat(block: u64, _: &mut Rng) -> Box<dyn Scripts> {
    let mut ids = Ids::default();
    let systems: Vec<_> = (0..10).map(|_| ids.prefix(400, block)).collect();
    Box::new(move |rng: &mut Rng| {
        let blocks = Blocks::new(rng.choice(&systems).cloned().unwrap_or_default(), ids.range());
        Script::single(0, blocks, 400 + skewed(rng, 300.0, 1.0, (10, 8000)), skewed(rng, 150.0, 0.8, (5, 2000)))
    })
}

fn tenants(block: u64, _: &mut Rng) -> Box<dyn Scripts> {
    const TENANTS: u16 = 20;
    let mut ids = Ids::default();
    let systems: Vec<_> = (0..TENANTS).map(|_| ids.prefix(2000, block)).collect();
    Box::new(move |rng: &mut Rng| {
        let tenant = if rng.bool() { 0 } else { rng.u16(1..TENANTS) };
        let median = if tenant == 0 { 5000.0 } else { 400.0 };
        let blocks = Blocks::new(systems.get(usize::from(tenant)).cloned().unwrap_or_default(), ids.range());
        let prompt = 2000 + skewed(rng, median, 0.6, (20, 20_000));
        Script::single(tenant, blocks, prompt, skewed(rng, 250.0, 0.7, (10, 2000)))
    })
}

fn adapters(block: u64, _: &mut Rng) -> Box<dyn Scripts> {
    const ADAPTERS: u32 = 32;
    let mut ids = Ids::default();
    // What an adapter has computed is of no use to another: each has its own blocks.
    let systems: Vec<_> = (0..ADAPTERS).map(|_| ids.prefix(500, block)).collect();
    Box::new(move |rng: &mut Rng| {
        let adapter = zipf(rng, ADAPTERS) as u16;
        let blocks = Blocks::new(systems.get(usize::from(adapter)).cloned().unwrap_or_default(), ids.range());
        let prompt = 500 + skewed(rng, 250.0, 0.7, (20, 4000));
        let script = Script::single(adapter, blocks, prompt, skewed(rng, 150.0, 0.7, (5, 1500)));
        Script { adapter: Some(adapter), ..script }
    })
}

fn small(_: u64, _: &mut Rng) -> Box<dyn Scripts> {
    let mut ids = Ids::default();
    Box::new(move |rng: &mut Rng| Script::single(0, Blocks::new(Arc::default(), ids.range()), 200, rng.u64(50..=150)))
}

/// The turns of a conversation: each prompt is everything said before and something new.
fn turns(
    rng: &mut Rng,
    context: u64,
    count: usize,
    turn: impl Fn(&mut Rng) -> (u64, u64),
    pause: impl Fn(&mut Rng) -> u64,
) -> SmallVec<[Turn; 1]> {
    let mut said = context;
    let mut next = |first: bool| {
        let (new, output_tokens) = turn(rng);
        let prompt_tokens = said + new;
        said = prompt_tokens + output_tokens;
        Turn { prompt_tokens, output_tokens, pause_us: if first { 0 } else { pause(rng) } }
    };
    (0..count).map(|at| next(at == 0)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Typical;
    use super::*;

    fn typical(name: &str) -> Typical {
        let mut rng = Rng::with_seed(1);
        let mut scripts = (Workload::named(name).unwrap().scripts)(128, &mut rng);
        Typical::drawn(&mut *scripts, &mut rng)
    }

    #[test]
    fn code_generation_has_the_published_means() {
        let typical = typical("code-generation");
        assert!((5.5..6.5).contains(&typical.turns), "{typical:?}");
        assert!((700.0..900.0).contains(&typical.output_tokens), "{typical:?}");
    }

    #[test]
    fn reasoning_has_the_published_means() {
        let typical = typical("reasoning");
        assert!((7200.0..8800.0).contains(&typical.output_tokens), "{typical:?}");
    }

    #[test]
    fn a_turn_begins_with_all_that_was_said_before() {
        let mut rng = Rng::with_seed(2);
        let mut scripts = conversation(16, &mut rng);
        for _ in 0..100 {
            let turns = scripts.next(&mut rng).turns;
            for pair in turns.windows(2) {
                assert!(pair[1].prompt_tokens > pair[0].prompt_tokens + pair[0].output_tokens);
            }
        }
    }

    #[test]
    fn questions_of_a_group_share_the_system_prompt_and_nothing_else() {
        let mut rng = Rng::with_seed(3);
        let mut scripts = shared_prefix_chat(100, &mut rng);
        let mut firsts = std::collections::HashSet::new();
        let mut lasts = std::collections::HashSet::new();
        for _ in 0..20_000 {
            let blocks = scripts.next(&mut rng).blocks;
            firsts.insert(blocks.id(59));
            lasts.insert(blocks.id(60));
        }
        assert_eq!((firsts.len(), lasts.len()), (150, 750));
    }

    #[test]
    fn adapters_are_asked_for_by_popularity() {
        let mut rng = Rng::with_seed(4);
        let mut scripts = adapters(128, &mut rng);
        let mut counts = [0u32; 32];
        for _ in 0..10_000 {
            counts[usize::from(scripts.next(&mut rng).adapter.unwrap())] += 1;
        }
        assert!(counts[0] > 2 * counts[2] && counts[31] > 20);
    }
}
