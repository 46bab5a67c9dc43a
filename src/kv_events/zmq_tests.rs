//! Against publishers of the crate `zeromq`, and against a peer that means no good.

use tokio::net::TcpListener;
use zeromq::{PubSocket, RouterSocket, Socket, SocketRecv as _, SocketSend as _, ZmqMessage};

use super::*;

const LIMIT: Duration = Duration::from_secs(20);
const ZMQ: Zmq = Zmq { connect_timeout: Duration::from_secs(10) };

fn frames(parts: &[&[u8]]) -> ZmqMessage {
    let parts: Vec<_> = parts.iter().map(|part| Bytes::copy_from_slice(part)).collect();
    ZmqMessage::try_from(parts).unwrap()
}

/// The next message of a publisher that says the same until it is heard: a subscription takes a moment to arrive.
async fn heard(publisher: &mut PubSocket, says: &[&[&[u8]]], link: &mut Link) -> Message {
    let publishing = async {
        loop {
            for parts in says {
                publisher.send(frames(parts)).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        next = timeout(LIMIT, link.next()) => next.unwrap().unwrap(),
        () = publishing => unreachable!(),
    }
}

#[tokio::test]
async fn a_real_publisher_is_heard_over_tcp_and_unix_by_topic_and_at_any_length() {
    let path = std::env::temp_dir().join(format!("fairlead-zmq-{}.sock", std::process::id()));
    for bind in ["tcp://127.0.0.1:0".to_owned(), "tcp://[::1]:0".to_owned(), format!("ipc://{}", path.display())] {
        let mut publisher = PubSocket::new();
        let address = publisher.bind(&bind).await.unwrap().to_string();
        let mut link = ZMQ.subscribe(&address, "kv").await.unwrap();
        let long = vec![7; 3 << 20];
        let says: [&[&[u8]]; 2] = [&[b"other", &[0; 8], b"x"], &[b"kv-1", &9_u64.to_be_bytes(), &long]];
        let (number, payload) = heard(&mut publisher, &says, &mut link).await;
        assert_eq!((number, payload.len()), (9, long.len()), "{address}");
        drop(publisher);
        let ended = async { while link.next().await.is_ok() {} };
        timeout(LIMIT, ended).await.expect("a connection that ends is noticed");
    }
    std::fs::remove_file(path).ok();
}

#[tokio::test]
async fn a_real_router_repeats_what_it_is_asked_for() {
    let mut router = RouterSocket::new();
    let address = router.bind("tcp://127.0.0.1:0").await.unwrap().to_string();
    let (sink, mut replayed) = mpsc::channel(8);
    let answering = async {
        let asked = router.recv().await.unwrap().into_vec();
        let who = asked[0].clone();
        assert_eq!(asked[1..], [Bytes::new(), Bytes::copy_from_slice(&5_u64.to_be_bytes())]);
        for number in [5, 6, END] {
            router.send(frames(&[&who, b"", b"kv", &u64::to_be_bytes(number), b"p"])).await.unwrap();
        }
    };
    let (replay, ()) = timeout(LIMIT, async { tokio::join!(ZMQ.replay(&address, 5, sink), answering) }).await.unwrap();
    replay.unwrap();
    let numbers: Vec<u64> = std::iter::from_fn(|| replayed.try_recv().ok().map(|(number, _)| number)).collect();
    assert_eq!(numbers, [5, 6]);
}

/// A peer that greets and says of itself what a publisher would, and then `says`; what it was told after that.
async fn peer(listener: &TcpListener, says: &[u8], told: usize) -> Vec<u8> {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut out = BytesMut::from(&zmtp::greeting()[..]);
    zmtp::put_ready("PUB", &mut out);
    out.extend_from_slice(says);
    stream.write_all(&out).await.unwrap();
    // Greeting, `READY` and subscription come first.
    let (mut first, mut rest) = ([0; GREETING_BYTES + 40 + 3], vec![0; told]);
    stream.read_exact(&mut first).await.unwrap();
    stream.read_exact(&mut rest).await.unwrap();
    rest
}

#[tokio::test]
async fn a_peer_that_announces_more_than_there_is_memory_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let says = [&[2][..], &(1_u64 << 60).to_be_bytes(), b"and so on"].concat();
    let listening = async {
        let mut link = ZMQ.subscribe(&address, "").await.unwrap();
        link.next().await
    };
    let (heard, told) = timeout(LIMIT, async { tokio::join!(listening, peer(&listener, &says, 0)) }).await.unwrap();
    let error = heard.unwrap_err().to_string();
    assert!(error.contains("a message of 1152921504606846976 bytes") && told.is_empty(), "{error}");
}

#[tokio::test]
async fn signs_of_life_are_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let mut link = None;
    let listening = async {
        let link = link.insert(ZMQ.subscribe(&address, "").await.unwrap());
        link.next().await
    };
    let ping = b"\x04\x08\x04PING\0\x64c";
    let told = timeout(LIMIT, async {
        tokio::select! {
            told = peer(&listener, ping, 8) => told,
            heard = listening => panic!("{heard:?}"),
        }
    });
    assert_eq!(told.await.unwrap(), b"\x04\x06\x04PONGc");
}

#[tokio::test]
async fn a_peer_that_is_no_publisher_or_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let hasty = Zmq { connect_timeout: Duration::from_millis(50) };
    let error = hasty.subscribe(&address, "").await.err().unwrap().to_string();
    assert!(error.contains("does not greet in time"), "{error}");
    let stranger = async {
        let (_silent, _) = listener.accept().await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&[b'x'; GREETING_BYTES]).await.unwrap();
        std::future::pending::<()>().await;
    };
    let error = tokio::select! {
        subscribed = ZMQ.subscribe(&address, "") => subscribed.err().unwrap().to_string(),
        () = stranger => unreachable!(),
    };
    assert!(error.contains("does not speak ZMTP 3"), "{error}");
    assert!(ZMQ.subscribe("inproc://x", "").await.is_err());
}

#[tokio::test]
async fn a_publisher_that_says_nothing_is_asked_for_a_sign_of_life() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = keep_alive(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap()).unwrap();
    let socket = SockRef::from(&stream);
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap() + 3 * socket.tcp_keepalive_interval().unwrap(), 2 * SILENCE);
}
