//! Faults that an engine shows on command.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a listener stays closed when the command came over HTTP without `for_ms`: nobody could reach it to end it.
const CLOSED_DEFAULT: Duration = Duration::from_secs(1);

/// What goes wrong. In JSON: `{"fault":"reset_mid_stream","after_chunks":3}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// Nothing; takes back every fault.
    None,
    /// The listener is closed; open connections end after their current answer.
    Refuse,
    /// The listener is closed and open connections are reset, as if the process had died.
    Crash,
    /// A crash, after which all counts start at 0 and the cache is empty.
    Restart,
    /// Requests are read and never answered.
    Hang,
    /// The connection is reset before response headers.
    Reset,
    /// The connection is reset after that many chunks of the answer (a plain answer is cut in its middle).
    ResetMidStream {
        /// Chunks (SSE events) that still arrive.
        after_chunks: usize,
    },
    /// An error answer in the `OpenAI` shape.
    Status {
        /// HTTP status.
        code: u16,
        /// Value of `retry-after` in seconds; 429 and 503 get 1 when it is missing.
        #[serde(default)]
        retry_after_s: Option<u64>,
    },
    /// `/metrics` answers late.
    MetricsDelay {
        /// Added time.
        delay_ms: u64,
    },
    /// `/metrics` never answers.
    MetricsHang,
    /// Gauges in `/metrics` are NaN.
    MetricsNan,
    /// Gauges in `/metrics` are far outside of their range.
    MetricsAbsurd,
    /// Gauges in `/metrics` all have this value.
    MetricsLie {
        /// The value: negative, 1e300, whatever is a number.
        value: f64,
    },
    /// `/metrics` is no text at all.
    MetricsGarbage {
        /// Random bytes.
        bytes: usize,
    },
    /// `/metrics` answers with this status.
    MetricsStatus {
        /// HTTP status.
        code: u16,
    },
    /// `/metrics` comes in pieces of 64 bytes at this pace.
    MetricsTrickle {
        /// Bytes each second.
        bytes_per_second: u32,
    },
    /// `/metrics` is followed by that many bytes of unknown series.
    MetricsHuge {
        /// Added bytes.
        bytes: usize,
    },
}

/// A fault and how long it lasts. Without both limits it stays until replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultCommand {
    /// What goes wrong.
    #[serde(flatten)]
    pub fault: Fault,
    /// Only the next so many requests (not for `refuse` and `crash`).
    #[serde(default)]
    pub times: Option<u64>,
    /// Only for so long, in milliseconds.
    #[serde(default)]
    pub for_ms: Option<u64>,
}

impl From<Fault> for FaultCommand {
    fn from(fault: Fault) -> Self {
        Self { fault, times: None, for_ms: None }
    }
}

impl FaultCommand {
    /// Gives a listener fault that came over HTTP an end, because it also closes the door for the command that would end it.
    pub(super) fn reachable_again(mut self) -> Self {
        if matches!(self.fault, Fault::Refuse | Fault::Crash | Fault::Restart) {
            self.for_ms.get_or_insert(CLOSED_DEFAULT.as_millis() as u64);
        }
        self
    }
}

/// State of the listener.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Gate {
    Open,
    Refusing { until: Option<Instant> },
    Crashed { until: Option<Instant> },
}

#[derive(Debug)]
struct Armed {
    fault: Fault,
    left: Option<u64>,
    until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Slots {
    traffic: Option<Armed>,
    metrics: Option<Armed>,
}

/// Where faults are armed; requests look here.
#[derive(Debug)]
pub(super) struct FaultBoard {
    /// False while nothing is armed, so that the fast path takes no lock.
    armed: AtomicBool,
    slots: Mutex<Slots>,
    gate: watch::Sender<Gate>,
}

impl FaultBoard {
    pub(super) fn new() -> Self {
        Self { armed: AtomicBool::new(false), slots: Mutex::default(), gate: watch::Sender::new(Gate::Open) }
    }

    pub(super) fn gate(&self) -> watch::Receiver<Gate> {
        self.gate.subscribe()
    }

    /// The listener opens again by itself when its time is up.
    pub(super) fn reopen(&self) {
        self.gate.send_replace(Gate::Open);
    }

    pub(super) fn set(&self, command: FaultCommand) {
        let until = command.for_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
        let armed = Armed { fault: command.fault, left: command.times, until };
        match armed.fault {
            Fault::None => self.clear(),
            Fault::Refuse => drop(self.gate.send_replace(Gate::Refusing { until })),
            Fault::Crash | Fault::Restart => drop(self.gate.send_replace(Gate::Crashed { until })),
            Fault::MetricsDelay { .. }
            | Fault::MetricsHang
            | Fault::MetricsNan
            | Fault::MetricsAbsurd
            | Fault::MetricsLie { .. }
            | Fault::MetricsGarbage { .. }
            | Fault::MetricsStatus { .. }
            | Fault::MetricsTrickle { .. }
            | Fault::MetricsHuge { .. } => {
                self.arm(|slots| slots.metrics = Some(armed));
            }
            Fault::Hang | Fault::Reset | Fault::ResetMidStream { .. } | Fault::Status { .. } => {
                self.arm(|slots| slots.traffic = Some(armed));
            }
        }
    }

    fn clear(&self) {
        self.arm(|slots| *slots = Slots::default());
        self.reopen();
    }

    fn arm(&self, change: impl FnOnce(&mut Slots)) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut slots);
        self.armed.store(slots.traffic.is_some() || slots.metrics.is_some(), Ordering::Release);
    }

    /// The fault that the next inference request shows.
    pub(super) fn next_traffic(&self) -> Option<Fault> {
        self.next(|slots| &mut slots.traffic)
    }

    /// The fault that the next `/metrics` request shows.
    pub(super) fn next_metrics(&self) -> Option<Fault> {
        self.next(|slots| &mut slots.metrics)
    }

    fn next(&self, slot: impl FnOnce(&mut Slots) -> &mut Option<Armed>) -> Option<Fault> {
        if !self.armed.load(Ordering::Acquire) {
            return None;
        }
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slot(&mut slots);
        let armed = slot.as_mut()?;
        let spent = armed.left == Some(0) || armed.until.is_some_and(|until| Instant::now() >= until);
        if spent {
            *slot = None;
            return None;
        }
        if let Some(left) = &mut armed.left {
            *left -= 1;
        }
        Some(armed.fault.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_for_the_next_two_requests_ends_after_them() {
        let board = FaultBoard::new();
        let command = r#"{"fault":"status","code":503,"times":2}"#;
        board.set(serde_json::from_str(command).unwrap());
        assert_eq!(board.next_traffic(), Some(Fault::Status { code: 503, retry_after_s: None }));
        assert!(board.next_metrics().is_none());
        assert!(board.next_traffic().is_some());
        assert!(board.next_traffic().is_none());
    }

    #[test]
    fn none_takes_every_fault_back() {
        let board = FaultBoard::new();
        board.set(Fault::Hang.into());
        board.set(Fault::MetricsNan.into());
        board.set(Fault::Refuse.into());
        board.set(Fault::None.into());
        assert!(board.next_traffic().is_none());
        assert!(board.next_metrics().is_none());
        assert_eq!(*board.gate().borrow(), Gate::Open);
    }
}
