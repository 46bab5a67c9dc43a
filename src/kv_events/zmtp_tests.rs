use proptest::prelude::*;

use super::*;

/// Everything that a decoder finds in `bytes` when they come in pieces of these lengths, over and over.
fn decoded(bytes: &[u8], pieces: &[usize]) -> Result<Vec<Received>, Fault> {
    let (mut decoder, mut buffer, mut found) = (Decoder::default(), BytesMut::new(), Vec::new());
    let (mut rest, mut lengths) = (bytes, pieces.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(*lengths.next().unwrap()));
        buffer.extend_from_slice(piece);
        rest = after;
        while let Some(received) = decoder.next(&mut buffer)? {
            found.push(received);
        }
    }
    Ok(found)
}

fn message(frames: &[&[u8]]) -> Received {
    Received::Message(frames.iter().map(|frame| Bytes::copy_from_slice(frame)).collect())
}

#[test]
fn the_greeting_is_what_the_protocol_says() {
    let own = greeting();
    assert_eq!(own[..12], [0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0]);
    assert!(own[12..].starts_with(b"NULL\0") && own[16..].iter().all(|byte| *byte == 0));
    assert_eq!(check_greeting(&own), Ok(()));
    let with = |at: usize, part: &[u8]| {
        let mut other = own;
        other[at..at + part.len()].copy_from_slice(part);
        check_greeting(&other)
    };
    assert_eq!(with(10, &[3, 1]), Ok(()));
    assert_eq!(with(10, &[2]), Err(Fault::Protocol));
    assert_eq!(with(0, b"HTTP/1.1"), Err(Fault::Protocol));
    assert_eq!(with(12, b"CURVE"), Err(Fault::Mechanism("CURVE".to_owned())));
}

#[test]
fn a_socket_says_what_it_is_and_what_it_wants() {
    let mut out = BytesMut::new();
    put_ready("SUB", &mut out);
    assert_eq!(&*out, b"\x04\x26\x05READY\x0bSocket-Type\0\0\0\x03SUB\x08Identity\0\0\0\0");
    out.clear();
    put_subscription("kv", &mut out);
    assert_eq!(&*out, b"\0\x03\x01kv");
    out.clear();
    put_pong(b"\0\x64context", &mut out);
    assert_eq!(&*out, b"\x04\x0c\x04PONGcontext");
}

#[test]
fn a_length_above_the_cap_is_refused_as_soon_as_it_is_announced() {
    for length in [MESSAGE_BYTES_MAX as u64 + 1, 1 << 60, u64::MAX] {
        for flags in [LONG, LONG | MORE, LONG | COMMAND] {
            let mut buffer = BytesMut::from(&[&[flags][..], &length.to_be_bytes()].concat()[..]);
            let fault = Decoder::default().next(&mut buffer);
            assert_eq!(fault, Err(Fault::TooLong { bytes: length, frames: 1 }));
        }
    }
    let mut buffer = BytesMut::from(&[&[LONG][..], &(MESSAGE_BYTES_MAX as u64).to_be_bytes()].concat()[..]);
    assert_eq!(Decoder::default().next(&mut buffer), Ok(None));
    assert!(buffer.capacity() < 1024, "no room is made for what has not come");
}

#[test]
fn frames_count_together() {
    let half = vec![7; MESSAGE_BYTES_MAX / 2 + 1];
    let mut out = BytesMut::new();
    put_message(&[&half, &half], &mut out);
    let bytes = 2 * half.len() as u64;
    assert_eq!(decoded(&out, &[1 << 20]), Err(Fault::TooLong { bytes, frames: 2 }));
    // Messages one after the other do not.
    let mut out = BytesMut::new();
    (0..3).for_each(|_| put_message(&[&half], &mut out));
    assert_eq!(decoded(&out, &[1 << 20]).unwrap().len(), 3);
    let mut out = BytesMut::new();
    put_message(&[&[][..]; FRAMES_MAX + 1], &mut out);
    assert_eq!(decoded(&out, &[100]), Err(Fault::TooLong { bytes: 0, frames: FRAMES_MAX + 1 }));
}

#[test]
fn commands_have_names_and_a_refusal_is_the_end() {
    let mut out = BytesMut::new();
    put_command("PING", b"\0\x64c", &mut out);
    put_message(&[b"a"], &mut out);
    let ping = Received::Command(Bytes::from_static(b"PING"), Bytes::from_static(b"\0\x64c"));
    assert_eq!(decoded(&out, &[1]), Ok(vec![ping, message(&[b"a"])]));
    let mut out = BytesMut::new();
    put_command("ERROR", b"\x02no", &mut out);
    assert_eq!(decoded(&out, &[3]), Err(Fault::Refused("no".to_owned())));
    for nameless in [&[COMMAND, 0][..], &[COMMAND, 1, 0], &[COMMAND, 2, 9, b'x']] {
        assert_eq!(decoded(nameless, &[1]), Err(Fault::Command), "{nameless:?}");
    }
}

proptest! {
    #[test]
    fn messages_come_out_as_they_went_in_however_they_are_cut(
        messages in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 1..5), 0..6),
        pieces in prop::collection::vec(1..900_usize, 1..8),
    ) {
        let mut out = BytesMut::new();
        for frames in &messages {
            let frames: Vec<_> = frames.iter().map(Vec::as_slice).collect();
            put_message(&frames, &mut out);
        }
        let expected = messages.into_iter().map(|frames| Received::Message(frames.into_iter().map(Bytes::from).collect()));
        prop_assert_eq!(decoded(&out, &pieces), Ok(expected.collect()));
    }

    #[test]
    fn any_bytes_at_all_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (whole, pieces) = (decoded(&bytes, &[400]), decoded(&bytes, &[1]));
        prop_assert_eq!(whole, pieces);
    }
}
