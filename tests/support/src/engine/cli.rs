//! `fairlead-lab engine`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::{Capacity, Dialect, Engine, EngineHandle, EngineOptions, FaultCommand, Timing};

const FAULTS: &str = "\
Faults on command, on the engine's own port:

  curl -d '{\"fault\":\"status\",\"code\":503,\"times\":2}' http://127.0.0.1:9001/_lab/fault

\"fault\" is one of
  none               takes all back
  refuse, crash      the listener is closed (and with crash open connections reset), for \"for_ms\" or 1 s
  hang, reset        no answer, or a connection reset, before response headers
  reset_mid_stream   a reset after \"after_chunks\" events
  status             an error answer with \"code\" and \"retry_after_s\"
  restart            a crash, after which counts are 0 and the cache is empty
  metrics_delay      metrics late by \"delay_ms\"; metrics_trickle (\"bytes_per_second\"), metrics_hang never
  metrics_nan        gauges that lie; also metrics_absurd and metrics_lie (\"value\")
  metrics_huge       \"bytes\" of unknown series; metrics_garbage (\"bytes\"), metrics_status (\"code\")
Each may be limited to the next \"times\" requests and to \"for_ms\" milliseconds.
--fault arms one from the start. GET /_lab/counters tells what the engine has seen.
POST /v1/load_lora_adapter, /v1/unload_lora_adapter, /sleep and /wake_up do as vLLM's.";

/// Simulated engines: vLLM, with the metrics of others on demand.
///
/// Serves chat and text completions (plain and streamed), plain answers on the other inference paths, /v1/models, /tokenize,
/// /health, /version and /metrics as vLLM 0.32 does. Prints one line per engine: its name and its address. Ends on Ctrl-C.
#[derive(Debug, Args)]
#[command(after_help = FAULTS)]
pub struct EngineArgs {
    /// Number of engines on the address of --bind (with a port other than 0 they take consecutive ports).
    #[arg(long, alias = "engines", default_value_t = 1, value_name = "N")]
    count: u16,
    /// Address for --count; port 0 picks free ports.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT")]
    bind: SocketAddr,
    /// Address of one engine; may be given several times, instead of --count and --bind.
    #[arg(long, value_name = "IP:PORT", conflicts_with_all = ["count", "bind"])]
    address: Vec<SocketAddr>,
    /// Served model name; may be given several times.
    #[arg(long, default_value = "llama-3-8b", value_name = "NAME")]
    model: Vec<String>,
    /// Adapter name; may be given several times.
    #[arg(long, value_name = "NAME")]
    lora: Vec<String>,
    /// Adapters in use at once; requests for one more wait [default: all].
    #[arg(long, default_value_t = 0, value_name = "N")]
    max_loras: usize,
    /// Whose metrics are shown.
    #[arg(long, value_enum, default_value_t = Dialect::Vllm)]
    dialect: Dialect,
    /// Data-parallel ranks behind each address.
    #[arg(long, default_value_t = 1, value_name = "N")]
    ranks: usize,
    /// How fast the engines are: 0.5 takes twice the time for everything.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    speed: f64,
    /// So many of the engines, the last ones, are slower than the others by --slow-speed.
    #[arg(long, default_value_t = 0, value_name = "N")]
    slow: usize,
    /// Speed of those.
    #[arg(long, default_value_t = 0.5, value_name = "FACTOR")]
    slow_speed: f64,
    /// Fault armed at the start, as JSON; may be given several times.
    #[arg(long, value_name = "JSON")]
    fault: Vec<String>,
    /// File to write the engines to, as an endpoint list for Fairlead.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Answer at once with a fixed small reply (for benchmarks of what stands before the engine).
    #[arg(long)]
    fast: bool,
    /// Seed of texts and lengths.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Mean length of a reply that the request does not cut.
    #[arg(long, default_value_t = 64, value_name = "TOKENS")]
    reply_tokens: u32,
    /// Fixed time of a step, in milliseconds.
    #[arg(long, default_value_t = 8.0, value_name = "MS")]
    step_ms: f64,
    /// Time of a step per prompt token, in microseconds.
    #[arg(long, default_value_t = 60.0, value_name = "US")]
    prefill_token_us: f64,
    /// Time of a step per decoding sequence, in microseconds.
    #[arg(long, default_value_t = 100.0, value_name = "US")]
    decode_sequence_us: f64,
    /// Time that a step takes longer for each adapter that it brings in, in milliseconds.
    #[arg(long, default_value_t = 30.0, value_name = "MS")]
    lora_load_ms: f64,
    /// Token budget of a step.
    #[arg(long, default_value_t = 2048, value_name = "TOKENS")]
    step_tokens: usize,
    /// Sequences running at once.
    #[arg(long, default_value_t = 256, value_name = "N")]
    max_sequences: usize,
    /// KV blocks of 16 tokens.
    #[arg(long, default_value_t = 8192, value_name = "N")]
    kv_blocks: usize,
    /// Longest prompt plus reply.
    #[arg(long, default_value_t = 32_768, value_name = "TOKENS")]
    max_model_len: usize,
}

impl EngineArgs {
    fn options(&self) -> anyhow::Result<EngineOptions> {
        let micros = |value: f64| Duration::try_from_secs_f64(value / 1e6).context("a time must be a number from 0");
        Ok(EngineOptions {
            models: self.model.clone(),
            loras: self.lora.clone(),
            loras_max: self.max_loras,
            dialect: self.dialect,
            ranks: self.ranks.max(1),
            fast: self.fast,
            seed: self.seed,
            reply_tokens: self.reply_tokens,
            model_len_max: self.max_model_len,
            timing: Timing {
                step: micros(self.step_ms * 1e3)?,
                prefill_token: micros(self.prefill_token_us)?,
                decode_sequence: micros(self.decode_sequence_us)?,
                lora_load: micros(self.lora_load_ms * 1e3)?,
            }
            .at_speed(self.speed)
            .context("--speed must be above 0")?,
            capacity: Capacity {
                step_tokens_max: self.step_tokens.max(1),
                sequences_max: self.max_sequences.max(1),
                kv_blocks: self.kv_blocks.max(1),
                ..Capacity::default()
            },
            ..EngineOptions::default()
        })
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        if !self.address.is_empty() {
            return self.address.clone();
        }
        (0..self.count)
            .map(|index| {
                let mut address = self.bind;
                if address.port() != 0 {
                    address.set_port(address.port().saturating_add(index));
                }
                address
            })
            .collect()
    }

    fn faults(&self) -> anyhow::Result<Vec<FaultCommand>> {
        let read = |text: &String| serde_json::from_str(text).with_context(|| format!("--fault '{text}'"));
        self.fault.iter().map(read).collect()
    }

    fn endpoint_list(&self, engines: &[EngineHandle]) -> String {
        let adapters = self.lora.join(", ");
        let models: Vec<String> =
            self.model.iter().map(|model| format!("{{ name: {model}, adapters: [{adapters}] }}")).collect();
        let (models, engine) = (models.join(", "), self.dialect.engine());
        let line = |one: &EngineHandle| {
            let address = one.address();
            format!("- {{ address: \"{address}\", models: [ {models} ], engine: {engine} }}\n")
        };
        engines.iter().map(line).collect::<Vec<_>>().concat()
    }

    /// Starts the engines and serves until Ctrl-C.
    ///
    /// # Errors
    /// An address is taken or a setting is out of range.
    pub async fn run(self, out: &mut impl Write) -> anyhow::Result<()> {
        let options = self.options()?;
        let slow = options.timing.at_speed(self.slow_speed).context("--slow-speed must be above 0")?;
        let faults = self.faults()?;
        let mut engines: Vec<EngineHandle> = Vec::new();
        let addresses = self.addresses();
        let first_slow = addresses.len().saturating_sub(self.slow);
        for (index, address) in addresses.into_iter().enumerate() {
            let seed = options.seed.wrapping_add(index as u64);
            let timing = if index < first_slow { options.timing } else { slow };
            let name = format!("engine-{index}");
            let engine = Engine::start(EngineOptions { name, address, seed, timing, ..options.clone() }).await?;
            for fault in &faults {
                engine.set_fault(fault.clone());
            }
            writeln!(out, "{} {}", engine.name(), engine.url())?;
            engines.push(engine);
        }
        if let Some(path) = &self.write {
            let list = self.endpoint_list(&engines);
            std::fs::write(path, list).with_context(|| format!("cannot write '{}'", path.display()))?;
        }
        out.flush()?;
        tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")?;
        for engine in engines {
            engine.stop().await;
        }
        Ok(())
    }
}
