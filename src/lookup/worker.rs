//! The cold side: takes questions, and answers each in time.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, TokenSource};
use crate::domain::Clock;
use crate::index::HeldIndex;
use crate::state::Reader;

use super::hot::{Found, Lookup, Question};
use super::lmcache::LmCache;
use super::remote::Remote;
use super::status::Outcome;

/// How often it is looked which `LMCache` instance is where.
const REFRESH: Duration = Duration::from_secs(30);

/// What answers questions.
#[derive(Debug)]
pub struct Worker {
    lookup: Arc<Lookup>,
    questions: mpsc::Receiver<Question>,
    answering: Answering,
    concurrency: usize,
}

#[derive(Debug)]
struct Answering {
    source: TokenSource,
    remote: Remote,
    #[cfg(feature = "tokenizers")]
    local: Option<super::local::Local>,
    lmcache: Option<LmCache>,
}

impl Worker {
    /// Both sides of a lookup.
    ///
    /// # Errors
    /// If a model's files cannot be read.
    pub fn new(
        index: Arc<HeldIndex>,
        config: &Config,
        reader: &Reader,
        clock: &Clock,
    ) -> Result<(Arc<Lookup>, Self), String> {
        let (tokenizer, lmcache) = (&config.tokenizer, &config.lmcache);
        let (lookup, questions) = Lookup::new(index, tokenizer, lmcache);
        let answering = Answering {
            source: tokenizer.source,
            remote: Remote::new(tokenizer.clone(), reader.clone(), clock.clone()),
            #[cfg(feature = "tokenizers")]
            local: super::local::Local::of(tokenizer)?,
            lmcache: LmCache::new(lmcache.clone(), reader.clone(), clock.clone()),
        };
        #[cfg(not(feature = "tokenizers"))]
        if tokenizer.source == TokenSource::Directory {
            return Err("this build has no tokenizers: it was made without the feature `tokenizers`".to_owned());
        }
        let worker =
            Self { lookup: Arc::clone(&lookup), questions, answering, concurrency: tokenizer.concurrency.max(1) };
        Ok((lookup, worker))
    }
}

#[cfg(test)]
impl Worker {
    /// The body that whoever makes token ids is to be sent next.
    pub(crate) fn next_body(&mut self) -> Option<bytes::Bytes> {
        self.questions.try_recv().ok().map(|question| question.body)
    }
}

/// Answers questions until `cancel` fires.
pub async fn run(worker: Worker, cancel: CancellationToken) {
    let Worker { lookup, mut questions, answering, concurrency } = worker;
    let (lookup, answering) = (&lookup, &answering);
    let mut under_way = FuturesUnordered::new();
    let refreshing = async {
        let mut refresh = time::interval(REFRESH);
        loop {
            refresh.tick().await;
            if let Some(lmcache) = &answering.lmcache {
                lmcache.refresh().await;
            }
        }
    };
    tokio::pin!(refreshing);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            Some(question) = questions.recv(), if under_way.len() < concurrency => {
                under_way.push(answer(lookup, answering, question));
            }
            Some(()) = under_way.next() => {}
            () = &mut refreshing => {}
        }
    }
}

async fn answer(lookup: &Lookup, answering: &Answering, question: Question) {
    // Whoever asked may be gone.
    if !question.resume.is_awaited() {
        return;
    }
    let found = answering.find(lookup, &question).await;
    lookup.status().count(found.as_ref().err().copied().unwrap_or(Outcome::Asked));
    // Set once: the question is ours alone.
    question.answer.0.set(found).ok();
    drop(question.resume);
}

impl Answering {
    async fn find(&self, lookup: &Lookup, question: &Question) -> Result<Found, Outcome> {
        let tokens = if let Some(tokens) = &question.tokens {
            Arc::clone(tokens)
        } else {
            let tokens = self.tokens(question).await?;
            lookup.cache.put(question.key, &tokens);
            tokens
        };
        let mut also = Vec::new();
        if let Some(lmcache) = &self.lmcache {
            let status = lookup.status();
            match lmcache.held(&tokens, &question.model, question.salt.as_deref()).await {
                Some(depths) => {
                    status.lmcache_ok.fetch_add(1, Relaxed);
                    also = depths;
                }
                None => drop(status.lmcache_failed.fetch_add(1, Relaxed)),
            }
        }
        Ok(Found { tokens, also })
    }

    async fn tokens(&self, question: &Question) -> Result<Arc<[u32]>, Outcome> {
        match self.source {
            TokenSource::Engine | TokenSource::Service => self.remote.tokens(question).await,
            #[cfg(feature = "tokenizers")]
            TokenSource::Directory => match &self.local {
                Some(local) => local.tokens(question).await,
                None => Err(Outcome::Nobody),
            },
            #[cfg(not(feature = "tokenizers"))]
            TokenSource::Directory => Err(Outcome::Nobody),
            TokenSource::None => Err(Outcome::Nobody),
        }
    }
}
