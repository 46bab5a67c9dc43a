use super::*;

fn job(prompt_tokens: usize, reply_tokens: u32) -> (Job, watch::Receiver<Progress>) {
    let (progress, reader) = watch::channel(Progress::default());
    let block_hashes = (0..prompt_tokens / BLOCK_TOKENS).map(|block| block as u64).collect();
    (Job { prompt_tokens, block_hashes, reply_tokens, finish: Finish::Stop, lora: None, progress }, reader)
}

fn scheduler(kv_blocks: usize, sequences_max: usize) -> Scheduler {
    let capacity = Capacity { kv_blocks, sequences_max, step_tokens_max: 64, ..Capacity::default() };
    let options = EngineOptions { capacity, timing: Timing::quick(), ..EngineOptions::default() };
    Scheduler::new(&options, Arc::default(), Arc::default())
}

/// Steps until nothing is left; returns the number of steps.
fn finish(scheduler: &mut Scheduler) -> usize {
    for step in 0..10_000 {
        scheduler.drop_gone();
        if scheduler.running.is_empty() && scheduler.waiting.is_empty() {
            return step;
        }
        scheduler.plan();
        scheduler.deliver();
        scheduler.report();
    }
    panic!("the scheduler makes no progress");
}

#[tokio::test]
async fn a_long_prompt_is_computed_in_chunks_of_the_budget() {
    let mut scheduler = scheduler(100, 8);
    let (long, reader) = job(64 * 3, 5);
    scheduler.waiting.push_back(Sequence::new(long));
    assert_eq!(finish(&mut scheduler), 3 + 4, "three chunks, the last one gives the first token");
    assert_eq!(reader.borrow().generated, 5);
    assert_eq!(reader.borrow().finish, Some(Finish::Stop));
}

#[tokio::test]
async fn a_repeated_prompt_hits_the_cache_but_for_its_last_block() {
    let mut scheduler = scheduler(100, 8);
    for expected in [0, 48] {
        let (again, reader) = job(64, 1);
        scheduler.waiting.push_back(Sequence::new(again));
        finish(&mut scheduler);
        assert_eq!(reader.borrow().cached_tokens, expected);
    }
    assert_eq!(scheduler.stats().prefix_hits, 48);
    assert_eq!(scheduler.stats().prefix_queries, 128);
}

#[tokio::test]
async fn sequences_wait_for_a_seat() {
    let mut scheduler = scheduler(100, 2);
    let readers: Vec<_> = (0..5)
        .map(|_| {
            let (one, reader) = job(8, 3);
            scheduler.waiting.push_back(Sequence::new(one));
            reader
        })
        .collect();
    scheduler.plan();
    scheduler.report();
    let stats = scheduler.stats().clone();
    assert_eq!((stats.running, stats.waiting), (2, 3));
    finish(&mut scheduler);
    assert!(readers.iter().all(|reader| reader.borrow().generated == 3));
}

#[tokio::test]
async fn without_blocks_the_newest_sequence_is_preempted_and_still_finishes() {
    let mut scheduler = scheduler(6, 8);
    let readers: Vec<_> = (0..2)
        .map(|index| {
            let (mut one, reader) = job(32, 40);
            one.block_hashes.iter_mut().for_each(|hash| *hash += 100 * index);
            scheduler.waiting.push_back(Sequence::new(one));
            reader
        })
        .collect();
    finish(&mut scheduler);
    assert!(readers.iter().all(|reader| reader.borrow().generated == 40));
    assert!(scheduler.stats().preemptions > 0);
    assert!(scheduler.pool.usage().abs() < f64::EPSILON, "every block came back");
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_blocks_back() {
    let mut scheduler = scheduler(10, 8);
    let (one, reader) = job(32, 1000);
    scheduler.waiting.push_back(Sequence::new(one));
    scheduler.plan();
    scheduler.deliver();
    assert!(scheduler.pool.usage() > 0.0);
    drop(reader);
    assert_eq!(finish(&mut scheduler), 0);
    assert!(scheduler.pool.usage().abs() < f64::EPSILON);
    assert_eq!(scheduler.stats().finished_abort, 1);
}

#[tokio::test]
async fn a_request_for_one_adapter_too_many_waits_and_others_pass_it() {
    let mut scheduler = scheduler(100, 8);
    let readers: Vec<_> = [Some("a"), Some("b"), None]
        .into_iter()
        .map(|adapter| {
            let (mut one, reader) = job(8, 3);
            one.lora = adapter.map(str::to_owned);
            scheduler.waiting.push_back(Sequence::new(one));
            reader
        })
        .collect();
    scheduler.plan();
    scheduler.report();
    let stats = scheduler.stats().clone();
    assert_eq!((stats.running, stats.waiting, stats.deferred), (2, 1, 1));
    assert_eq!((stats.loras_running.as_str(), stats.loras_waiting.as_str()), ("a", "b"));
    finish(&mut scheduler);
    assert!(readers.iter().all(|reader| reader.borrow().generated == 3));
}

#[tokio::test]
async fn a_restart_forgets_cache_and_batch() {
    let mut scheduler = scheduler(100, 8);
    let (one, _reader) = job(64, 100);
    scheduler.waiting.push_back(Sequence::new(one));
    scheduler.plan();
    scheduler.restarts.fetch_add(1, Ordering::Relaxed);
    scheduler.forget_after_restart();
    assert!(scheduler.running.is_empty() && scheduler.pool.usage().abs() < f64::EPSILON);
}
