//! `fairlead-lab engine`.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::{Capacity, Engine, EngineHandle, EngineOptions, Timing};

const FAULTS: &str = "\
Faults on command, on the engine's own port:

  curl -d '{\"fault\":\"status\",\"code\":503,\"times\":2}' http://127.0.0.1:9001/_lab/fault

\"fault\" is one of
  none               takes all back
  refuse, crash      the listener is closed (and with crash open connections reset), for \"for_ms\" or 1 s
  hang, reset        no answer, or a connection reset, before response headers
  reset_mid_stream   a reset after \"after_chunks\" events
  status             an error answer with \"code\" and \"retry_after_s\"
  metrics_delay      by \"delay_ms\"; also metrics_hang, metrics_nan, metrics_absurd, metrics_huge (\"bytes\")
Each may be limited to the next \"times\" requests and to \"for_ms\" milliseconds.
GET /_lab/counters tells what the engine has seen.";

/// Simulated vLLM engines.
///
/// Serves chat and text completions (plain and streamed), plain answers on the other inference paths, /v1/models, /tokenize,
/// /health, /version and /metrics as vLLM 0.32 does. Prints one line per engine: its name and its address. Ends on Ctrl-C.
#[derive(Debug, Args)]
#[command(after_help = FAULTS)]
pub struct EngineArgs {
    /// Number of engines on the address of --bind (with a port other than 0 they take consecutive ports).
    #[arg(long, default_value_t = 1, value_name = "N")]
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
            fast: self.fast,
            seed: self.seed,
            reply_tokens: self.reply_tokens,
            model_len_max: self.max_model_len,
            timing: Timing {
                step: micros(self.step_ms * 1e3)?,
                prefill_token: micros(self.prefill_token_us)?,
                decode_sequence: micros(self.decode_sequence_us)?,
            },
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

    /// Starts the engines and serves until Ctrl-C.
    ///
    /// # Errors
    /// An address is taken or a setting is out of range.
    pub async fn run(self, out: &mut impl Write) -> anyhow::Result<()> {
        let options = self.options()?;
        let mut engines: Vec<EngineHandle> = Vec::new();
        for (index, address) in self.addresses().into_iter().enumerate() {
            let seed = options.seed.wrapping_add(index as u64);
            let engine =
                Engine::start(EngineOptions { name: format!("engine-{index}"), address, seed, ..options.clone() })
                    .await?;
            writeln!(out, "{} {}", engine.name(), engine.url())?;
            engines.push(engine);
        }
        out.flush()?;
        tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")?;
        for engine in engines {
            engine.stop().await;
        }
        Ok(())
    }
}
