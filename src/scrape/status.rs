//! How scraping goes, for metrics.

use std::sync::atomic::{AtomicBool, AtomicU64};

/// Counts of scraping, over all endpoints since the start. Written by the scraper, read by metrics.
#[derive(Debug, Default)]
pub struct ScrapeStatus {
    /// Pages read that told at least one gauge.
    pub reads_ok: AtomicU64,
    /// Reads that gave nothing, whatever the reason.
    pub reads_failed: AtomicU64,
    /// Lines that are not in the text format; the rest of their page counts.
    pub unreadable_lines: AtomicU64,
    /// Engines that began anew: counters went back, or the process was another one.
    pub engine_restarts: AtomicU64,
    /// Pages dropped because they were larger than `scrape.page_bytes_max`; each is a failed read as well.
    pub pages_too_large: AtomicU64,
    /// No strategy in use needs anything of the engines, so nothing is read.
    pub needs_nothing: AtomicBool,
}
