//! Whatever is lost, doubled or begun anew, the picture ends up as the publisher's.

use proptest::prelude::*;

use super::*;

/// What is taken: the payloads since the last clear, and why each clear came.
#[derive(Debug, Default)]
struct Taken {
    payloads: Vec<u64>,
    clears: Vec<Reason>,
    complete: bool,
}

impl Sink for Taken {
    fn apply(&mut self, payload: &[u8]) {
        self.payloads.push(u64::from_be_bytes(payload.try_into().unwrap()));
    }

    fn clear(&mut self, reason: Reason) {
        self.payloads.clear();
        self.clears.push(reason);
    }

    fn set_complete(&mut self, complete: bool) {
        self.complete = complete;
    }
}

/// A payload that names its publisher's life and its number.
fn payload(life: u64, number: u64) -> Bytes {
    Bytes::copy_from_slice(&(life << 32 | number).to_be_bytes())
}

fn live(feed: &mut Feed, taken: &mut Taken, number: u64) -> Option<AskReplay> {
    feed.live(number, payload(0, number), taken)
}

#[test]
fn a_gap_is_filled_by_a_replay_and_what_came_meanwhile_follows() {
    let (mut feed, mut taken) = (Feed::new(true), Taken::default());
    assert_eq!(feed.connected(), Some(AskReplay(0)));
    feed.replay_ended(true, &mut taken);
    assert!(taken.complete);
    for number in [0, 1] {
        assert_eq!(live(&mut feed, &mut taken, number), None);
    }
    assert_eq!(live(&mut feed, &mut taken, 4), Some(AskReplay(2)));
    assert_eq!(live(&mut feed, &mut taken, 5), None);
    (2..=4).for_each(|number| feed.replayed(number, &payload(0, number), &mut taken));
    feed.replay_ended(true, &mut taken);
    assert_eq!((taken.payloads.as_slice(), taken.clears.len()), (&[0, 1, 2, 3, 4, 5][..], 0));
    assert!(taken.complete);
}

#[test]
fn a_gap_that_no_replay_fills_voids_what_was_before() {
    let (mut feed, mut taken) = (Feed::new(false), Taken::default());
    assert_eq!(feed.connected(), None);
    for number in [0, 1, 5, 6] {
        assert_eq!(live(&mut feed, &mut taken, number), None);
    }
    assert_eq!((taken.payloads.as_slice(), taken.clears.as_slice()), (&[5, 6][..], &[Reason::Gap][..]));
    assert!(!taken.complete);
    // One that can be replayed, but begins too late.
    let (mut feed, mut taken) = (Feed::new(true), Taken::default());
    feed.connected();
    feed.replay_ended(true, &mut taken);
    live(&mut feed, &mut taken, 0);
    assert_eq!(live(&mut feed, &mut taken, 9), Some(AskReplay(1)));
    (7..=9).for_each(|number| feed.replayed(number, &payload(0, number), &mut taken));
    feed.replay_ended(true, &mut taken);
    assert_eq!((taken.payloads.as_slice(), taken.clears.as_slice()), (&[7, 8, 9][..], &[Reason::Gap][..]));
}

#[test]
fn an_engine_that_began_anew_is_noticed() {
    let (mut feed, mut taken) = (Feed::new(true), Taken::default());
    feed.connected();
    (0..5).for_each(|number| feed.replayed(number, &payload(0, number), &mut taken));
    feed.replay_ended(true, &mut taken);
    // Late copies of what was replayed.
    assert_eq!((live(&mut feed, &mut taken, 3), live(&mut feed, &mut taken, 4)), (None, None));
    assert_eq!(taken.payloads, [0, 1, 2, 3, 4]);
    assert_eq!(live(&mut feed, &mut taken, 0), None);
    assert_eq!((taken.payloads.as_slice(), taken.clears.as_slice()), (&[0][..], &[Reason::Restart][..]));
    assert!(taken.complete);
    // And again, its first messages unheard.
    assert_eq!(live(&mut feed, &mut taken, 1), None);
    assert_eq!(live(&mut feed, &mut taken, 1), Some(AskReplay(0)));
    assert!(!taken.complete && taken.payloads.is_empty());
}

#[test]
fn a_replay_that_breaks_off_or_grows_too_long_is_done_without() {
    let (mut feed, mut taken) = (Feed::new(true), Taken::default());
    feed.connected();
    feed.replayed(0, &payload(0, 0), &mut taken);
    assert_eq!(live(&mut feed, &mut taken, 3), None);
    feed.replay_ended(false, &mut taken);
    assert_eq!((taken.payloads.as_slice(), taken.clears.as_slice()), (&[3][..], &[Reason::Gap][..]));
    assert_eq!(live(&mut feed, &mut taken, 10), Some(AskReplay(4)));
    for number in 11..=11 + KEPT_MAX as u64 {
        live(&mut feed, &mut taken, number);
    }
    assert!(!feed.is_replaying());
    assert_eq!(taken.payloads.first(), Some(&10));
}

#[test]
fn a_batch_with_the_last_number_there_is_is_passed_over() {
    let (mut feed, mut taken) = (Feed::new(true), Taken::default());
    feed.connected();
    feed.replayed(u64::MAX, &payload(0, 7), &mut taken);
    feed.replay_ended(true, &mut taken);
    for number in [0, u64::MAX, 1] {
        assert_eq!(feed.live(number, payload(0, number & 1), &mut taken), None);
    }
    assert_eq!((taken.payloads.as_slice(), taken.clears.len()), (&[0, 1][..], 0));
}

#[derive(Debug, Clone)]
enum Happening {
    /// Something is published, and heard or not.
    Publish {
        heard: bool,
    },
    /// The running replay is answered: it has only so many of the last messages.
    Answer {
        keeps: u64,
        whole: bool,
    },
    Restart,
    Reconnect,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        12 => prop::bool::weighted(0.8).prop_map(|heard| Happening::Publish { heard }),
        6 => (0..20_u64, prop::bool::weighted(0.9)).prop_map(|(keeps, whole)| Happening::Answer { keeps, whole }),
        1 => Just(Happening::Restart),
        1 => Just(Happening::Reconnect),
    ]
}

proptest! {
    #[test]
    fn what_is_taken_is_always_an_unbroken_run_of_one_life(
        can_replay in any::<bool>(),
        happenings in prop::collection::vec(happening(), 0..80),
    ) {
        let (mut feed, mut taken) = (Feed::new(can_replay), Taken::default());
        let (mut life, mut published) = (0_u64, 0_u64);
        let mut asked = feed.connected();
        for happening in happenings {
            match happening {
                Happening::Publish { heard } => {
                    let number = published;
                    published += 1;
                    if heard {
                        let again = feed.live(number, payload(life, number), &mut taken);
                        asked = again.or(asked);
                    }
                }
                Happening::Answer { keeps, whole } => {
                    if let Some(AskReplay(from)) = asked.take().filter(|_| feed.is_replaying()) {
                        for number in from.max(published.saturating_sub(keeps))..published {
                            feed.replayed(number, &payload(life, number), &mut taken);
                        }
                        feed.replay_ended(whole, &mut taken);
                    }
                }
                // A new life is noticed by its connection or by its first message that is heard.
                Happening::Restart | Happening::Reconnect => {
                    if matches!(happening, Happening::Restart) {
                        (life, published) = (life + 1, 0);
                    }
                    feed.lost(&mut taken);
                    asked = feed.connected();
                }
            }
            let lives: Vec<u64> = taken.payloads.iter().map(|payload| payload >> 32).collect();
            prop_assert!(lives.iter().all(|one| *one == life), "{:?}", taken);
            prop_assert!(taken.payloads.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{:?}", taken);
            if taken.complete && !taken.payloads.is_empty() {
                prop_assert_eq!(taken.payloads[0], life << 32);
            }
        }
        // Once a replay has everything, so have we.
        if can_replay && published > 0 {
            feed.lost(&mut taken);
            prop_assert_eq!(feed.connected(), Some(AskReplay(0)));
            (0..published).for_each(|number| feed.replayed(number, &payload(life, number), &mut taken));
            feed.replay_ended(true, &mut taken);
            prop_assert_eq!(taken.payloads.len() as u64, published);
            prop_assert!(taken.complete);
        }
    }
}
