//! What is kept of one engine from reading to reading, and how one is read.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::domain::{Clock, EngineKind, Gauge, Gauges};
use crate::state::{Adapters, Endpoint, Mark};

use super::engines::{self, Engine};
use super::fetch::{FetchError, Fetcher, Line, PageAddress};
use super::lens::{Lens, Lenses};
use super::reading::Reading;
use super::windows::Windows;
use super::{ScrapeStatus, loads};

/// An engine whose pages say nothing known so often in a row may be another one now.
const STRANGE_MAX: u32 = 3;

/// After `/v1/loads` was refused, it is tried again after so many readings: the server may be a newer one by then.
const LOADS_PAUSE: u32 = 500;

/// Where an engine that is not known yet is looked for, in turn.
const PROBES: [&str; 3] = ["/metrics", "/prometheus/metrics", loads::PATH];

/// What all readings share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) fetcher: Fetcher,
    pub(super) clock: Clock,
    pub(super) status: Arc<ScrapeStatus>,
}

/// What is kept of one engine.
#[derive(Debug)]
pub(super) struct Book {
    /// As which engine it is read; `Auto` before it is known.
    kind: EngineKind,
    /// Which of [`PROBES`] is next.
    probe: usize,
    /// Readings in a row that told nothing.
    strange: u32,
    /// Readings for which `/v1/loads` is left alone.
    loads_refused: u32,
    lens: Option<Arc<Lens>>,
    reading: Reading,
    windows: Windows,
    started: Option<f64>,
    levels: Gauges,
    /// Addresses of pages that were read before.
    pages: Vec<(Box<str>, Arc<PageAddress>)>,
    /// The connection to the engine.
    line: Line,
    /// Something happened at the engine since the reading before.
    pub(super) is_busy: bool,
}

/// What one reading gathered.
#[derive(Debug, Default)]
struct Gathered {
    gauges: Gauges,
    adapters: Option<Adapters>,
    /// Our counts, as the engine saw them when it told its load.
    mark: Option<Mark>,
}

impl Book {
    pub(super) fn new(kind: EngineKind, window: std::time::Duration) -> Self {
        Self {
            kind,
            probe: 0,
            strange: 0,
            loads_refused: 0,
            lens: None,
            reading: Reading::default(),
            windows: Windows::over(window),
            started: None,
            levels: Gauges::default(),
            pages: Vec::new(),
            line: Line::default(),
            is_busy: true,
        }
    }

    /// One reading, into the endpoint's gauges. After a failure they stay as they were and grow stale by themselves.
    pub(super) async fn read(
        &mut self,
        endpoint: &Endpoint,
        lenses: &Lenses,
        context: &Context,
    ) -> Result<(), FetchError> {
        let mut gathered = Gathered::default();
        let result = self.gather(endpoint, lenses, context, &mut gathered).await;
        if gathered.gauges.is_empty() {
            self.note_strange(endpoint, &result);
            return result.and(Err(FetchError::NothingKnown));
        }
        self.strange = 0;
        let now = context.clock.now();
        let live = &endpoint.live;
        live.signals.set_engine(self.kind);
        live.signals.set_adapters(gathered.adapters.take());
        live.publish(&gathered.gauges, gathered.mark.unwrap_or_else(|| live.mark()), now);
        result
    }

    async fn gather(
        &mut self,
        endpoint: &Endpoint,
        lenses: &Lenses,
        context: &Context,
        gathered: &mut Gathered,
    ) -> Result<(), FetchError> {
        if self.kind == EngineKind::Auto {
            return self.probe(endpoint, lenses, context, gathered).await;
        }
        if self.kind == EngineKind::Sglang {
            let read = if self.loads_refused == 0 { self.loads(endpoint, context, gathered).await } else { Ok(()) };
            self.loads_refused = self.loads_refused.saturating_sub(1);
            match read {
                // The server is there, but without it.
                Err(FetchError::Status(_) | FetchError::NothingKnown) => self.loads_refused = LOADS_PAUSE,
                Err(error) => return Err(error),
                Ok(()) if !gathered.gauges.is_empty() && lenses.needed().is_within(loads::TELLS) => {
                    self.note_levels(&gathered.gauges);
                    return Ok(());
                }
                Ok(()) => {}
            }
        }
        let path = match self.kind {
            EngineKind::Generic => lenses.generic_path(),
            kind => engines::engine(kind).map_or(PROBES[0], |engine: &Engine| engine.path),
        };
        let read = self.metrics(path, endpoint, lenses, context, gathered).await;
        // Metrics are off, but the load is known.
        if gathered.gauges.is_empty() { read } else { Ok(()) }
    }

    /// Looks for an engine that is not known yet.
    async fn probe(
        &mut self,
        endpoint: &Endpoint,
        lenses: &Lenses,
        context: &Context,
        gathered: &mut Gathered,
    ) -> Result<(), FetchError> {
        let path = PROBES.get(self.probe % PROBES.len()).copied().unwrap_or_default();
        self.probe = (self.probe + 1) % PROBES.len();
        let read = if path == loads::PATH {
            self.loads(endpoint, context, gathered).await.inspect(|()| self.kind = EngineKind::Sglang)
        } else {
            self.metrics(path, endpoint, lenses, context, gathered).await
        };
        if self.kind != EngineKind::Auto {
            tracing::info!(endpoint = endpoint.address_text(), engine = self.kind.name(), "engine recognised");
        }
        read
    }

    async fn loads(
        &mut self,
        endpoint: &Endpoint,
        context: &Context,
        gathered: &mut Gathered,
    ) -> Result<(), FetchError> {
        let page = self.page(endpoint, loads::PATH)?;
        let question = endpoint.live.ask();
        let gauges = context.fetcher.page(&page, &mut self.line, loads::read).await?.ok_or(FetchError::NothingKnown)?;
        gathered.mark = Some(endpoint.live.mark_since(question));
        gathered.gauges = gauges;
        Ok(())
    }

    async fn metrics(
        &mut self,
        path: &str,
        endpoint: &Endpoint,
        lenses: &Lenses,
        context: &Context,
        gathered: &mut Gathered,
    ) -> Result<(), FetchError> {
        let (page, mut line) = (self.page(endpoint, path)?, mem::take(&mut self.line));
        let question = endpoint.live.ask();
        let take = |page: &[u8]| self.take_page(page, endpoint, lenses, context, gathered);
        let read = context.fetcher.page(&page, &mut line, take).await;
        self.line = line;
        read?;
        if gathered.mark.is_none() {
            gathered.mark = Some(endpoint.live.mark_since(question));
        }
        if gathered.gauges.is_empty() { Err(FetchError::NothingKnown) } else { Ok(()) }
    }

    fn take_page(
        &mut self,
        page: &[u8],
        endpoint: &Endpoint,
        lenses: &Lenses,
        context: &Context,
        gathered: &mut Gathered,
    ) {
        if self.kind == EngineKind::Auto {
            let Some(kind) = engines::recognise(page) else { return };
            self.kind = kind;
        }
        let Some(lens) = lenses.get(self.kind) else { return };
        if !self.lens.as_ref().is_some_and(|known| Arc::ptr_eq(known, &lens)) {
            self.windows.clear();
            self.lens = Some(Arc::clone(&lens));
        }
        let report = self.reading.read(page, &lens);
        context.status.unreadable_lines.fetch_add(report.unreadable_lines as u64, Relaxed);
        let mut levels = self.reading.levels(&lens);
        for gauge in Gauge::ALL {
            levels.set(gauge, gathered.gauges.get(gauge).or(levels.get(gauge)));
        }
        self.note_levels(&levels);
        let went_back = self.windows.take(&self.reading, &lens, context.clock.now());
        self.note_start(went_back, endpoint, context);
        gathered.gauges = levels;
        self.windows.derive(&lens, &mut gathered.gauges);
        gathered.adapters = self.reading.take_adapters();
    }

    /// Whether something happened there since the reading before.
    fn note_levels(&mut self, levels: &Gauges) {
        let load = [Gauge::Running, Gauge::Waiting].into_iter().filter_map(|gauge| levels.get(gauge)).sum::<f64>();
        self.is_busy = load > 0.0 || *levels != self.levels;
        self.levels = *levels;
    }

    /// An engine that began anew: its counters went back, or it says that its process is another one.
    fn note_start(&mut self, went_back: bool, endpoint: &Endpoint, context: &Context) {
        let another = self.started.zip(self.reading.started).is_some_and(|(was, is)| (was - is).abs() > 1.0);
        self.started = self.reading.started.or(self.started);
        if another && !went_back {
            self.windows.restart(context.clock.now());
        }
        if another || went_back {
            context.status.engine_restarts.fetch_add(1, Relaxed);
            endpoint.live.note_restart();
            tracing::info!(endpoint = endpoint.address_text(), engine = self.kind.name(), "engine began anew");
        }
    }

    /// A page that says nothing known, again and again, is another engine's.
    fn note_strange(&mut self, endpoint: &Endpoint, result: &Result<(), FetchError>) {
        if matches!(result, Ok(()) | Err(FetchError::NothingKnown | FetchError::Status(_))) {
            self.strange += 1;
        }
        if self.strange >= STRANGE_MAX && endpoint.spec.engine == EngineKind::Auto {
            (self.kind, self.strange) = (EngineKind::Auto, 0);
            self.windows.clear();
        }
    }

    fn page(&mut self, endpoint: &Endpoint, path: &str) -> Result<Arc<PageAddress>, FetchError> {
        if let Some((_, page)) = self.pages.iter().find(|(known, _)| **known == *path) {
            return Ok(Arc::clone(page));
        }
        let page = Arc::new(PageAddress::new(endpoint.spec.metrics_address(), path)?);
        self.pages.push((path.into(), Arc::clone(&page)));
        Ok(page)
    }
}
