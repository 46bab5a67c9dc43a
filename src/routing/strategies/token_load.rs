//! Sticky until saturated: among those that hold the prompt's prefix, the one with the least prefill ahead of it.

use std::sync::Arc;

use serde::Deserialize;
use smallvec::SmallVec;

use crate::routing::picker::lowest;
use crate::routing::prefix::{Look, Prefixes, Speed};
use crate::routing::scorers::ByPrefix;
use crate::routing::{
    About, Built, Candidates, Decision, Expectation, Needs, Parameter, Registration, RequestView, Router, Scored, Trace,
};
use crate::state::Endpoint;

use super::settings::{MEASURE, PREFILL_RATE, at_least};

/// Name of the filter in explanations.
const AFFINITY: &str = "prefix-affinity";

pub(super) const REGISTRATION: Registration = Registration {
    name: "token-load",
    aliases: &[],
    summary: "of the endpoints that hold the prompt's prefix, the one with the fewest uncached tokens ahead of it",
    about: About {
        purpose: "Long prompts that share beginnings, where prefill is what engines spend their time on: agents, code, \
                  documents. It holds to the cache until that endpoint is saturated.",
        formula: "Kept are the endpoints that hold `affinity` of the prompt, if there are any, and unless each of them \
                  has `saturation` seconds more of prefill ahead than some other. Of these, lowest seconds: uncached \
                  tokens sent there and not yet prefilled, plus those of this prompt, at the endpoint's prefill rate, \
                  plus `request_cost` for each open request per weight.",
        missing: "Without `measure`, tokens count as prefilled when that must be over at the endpoint's rate. Without the \
                  engine's prefill times, `prefill_rate`. Equal endpoints are drawn.",
        source: "llm-d's prefix-cache affinity with token load; its calibration run is replaced by learning.",
    },
    parameters: &[
        PREFILL_RATE,
        MEASURE,
        Parameter {
            name: "affinity",
            default: "0.8",
            about: "Share of the prompt's blocks that an endpoint must hold to be held to; at 0 nobody is.",
        },
        Parameter {
            name: "saturation",
            default: "18",
            about: "Seconds of prefill that those which hold the prompt may have ahead more than the others; at 0 there \
                    is no limit.",
        },
        Parameter {
            name: "request_cost",
            default: "0.003",
            about: "Seconds that each request open at an endpoint of weight 1 delays a new one.",
        },
    ],
    build: |parameters| {
        let given: Settings = parameters.read()?;
        at_least("prefill_rate", given.prefill_rate, 1.0)?;
        at_least("affinity", given.affinity, 0.0)?;
        at_least("saturation", given.saturation, 0.0)?;
        at_least("request_cost", given.request_cost, 0.0)?;
        let strategy = TokenLoad::new(given, parameters.prefixes());
        let scorer = ByPrefix::ahead(Arc::clone(&strategy.prefixes), strategy.speed);
        Ok(Built::Both(Arc::new(strategy), Scored::new(scorer)))
    },
};

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    prefill_rate: f64,
    measure: bool,
    affinity: f64,
    saturation: f64,
    /// Seconds.
    request_cost: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { prefill_rate: Speed::START, measure: false, affinity: 0.8, saturation: 18.0, request_cost: 0.003 }
    }
}

#[derive(Debug)]
struct TokenLoad {
    settings: Settings,
    speed: Speed,
    prefixes: Arc<Prefixes>,
}

impl TokenLoad {
    fn new(settings: Settings, prefixes: Arc<Prefixes>) -> Self {
        let speed = Speed { start: settings.prefill_rate, measure: settings.measure };
        Self { settings, speed, prefixes }
    }

    /// Positions of those to hold to; `None` for all.
    fn sticky(&self, look: &Look<'_>, candidates: Candidates<'_>, trace: &mut Trace) -> Option<SmallVec<[u32; 64]>> {
        let Settings { affinity, saturation, .. } = self.settings;
        if affinity <= 0.0 {
            return None;
        }
        let (mut sticky, mut least) = (SmallVec::new(), [f64::INFINITY; 2]);
        for (at, endpoint) in (0..).zip(candidates.iter()) {
            let holds = look.share(endpoint.id) >= affinity;
            if holds {
                sticky.push(at);
            }
            let [held, others] = &mut least;
            let least = if holds { held } else { others };
            *least = least.min(look.wait(endpoint.id));
        }
        let [held, others] = least;
        if sticky.is_empty() || sticky.len() == candidates.len() {
            return None;
        }
        if saturation > 0.0 && held - others > saturation {
            trace.note(|| format!("saturated: those which hold it have {held:.1} s ahead, another {others:.1} s"));
            return None;
        }
        for endpoint in candidates.iter().filter(|endpoint| look.share(endpoint.id) < affinity) {
            trace.left_out(endpoint, AFFINITY);
        }
        Some(sticky)
    }
}

impl Router for TokenLoad {
    fn needs(&self) -> Needs {
        self.speed.needs()
    }

    fn route(&self, request: &RequestView<'_>, candidates: Candidates<'_>, trace: &mut Trace) -> Decision {
        let look = self.prefixes.compare(request, candidates, self.speed);
        let seconds = |endpoint: &Endpoint| {
            let open = endpoint.live.requests(request.now, request.stale_after).0 / endpoint.weight();
            look.wait(endpoint.id) + look.miss(endpoint.id) + open * self.settings.request_cost
        };
        let mut rng = request.rng();
        let best = match self.sticky(&look, candidates, trace) {
            None => lowest(candidates.iter(), seconds, &mut rng),
            Some(sticky) => lowest(sticky.iter().map(|at| candidates.at(*at as usize)), seconds, &mut rng),
        };
        let best = best.unwrap_or_else(|| candidates.at(0));
        trace.note(|| format!("{}; {:.3} s", look.describe(best), seconds(best)));
        Decision::Send(Arc::clone(best))
    }

    fn on_sent(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Option<Expectation> {
        Some(self.prefixes.send(request, endpoint, self.speed))
    }
}
