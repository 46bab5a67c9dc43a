//! Accepting connections in one place and handing each to the serving thread with the fewest.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::config::ListenAddress;

use super::tls::Door;

/// First byte of a connection that begins with a TLS handshake; HTTP/2 begins with `P`.
const TLS_HANDSHAKE: u8 = 0x16;
/// Longest time until a client has shaken hands.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Connections that may wait for one serving thread; the acceptor waits above it.
const HANDED_OUT_MAX: usize = 64;

/// Connections that the kernel keeps for us until we accept them.
const BACKLOG: u32 = 1024;

/// A socket with an address that does not listen yet.
#[derive(Debug)]
pub(super) enum Bound {
    Tcp(TcpSocket),
    Unix(UnixSocket, SocketFile),
}

impl Bound {
    /// Binds. A socket file that nobody listens on is replaced.
    pub(super) fn new(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                // Connections of a former process that linger in the kernel do not count.
                socket.set_reuseaddr(true)?;
                socket.bind(*address)?;
                Ok(Self::Tcp(socket))
            }
            ListenAddress::Unix(path) => {
                clear_stale(path)?;
                let socket = UnixSocket::new_stream()?;
                socket.bind(path)?;
                Ok(Self::Unix(socket, SocketFile(path.clone())))
            }
        }
    }

    /// From now on clients can connect.
    pub(super) fn listen(self) -> io::Result<Listener> {
        match self {
            Self::Tcp(socket) => Ok(Listener::Tcp(socket.listen(BACKLOG)?)),
            Self::Unix(socket, file) => Ok(Listener::Unix(socket.listen(BACKLOG)?, file)),
        }
    }
}

/// The file of a unix socket, removed when dropped.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nothing depends on it: a stale file is cleared at the next start.
        drop(std::fs::remove_file(&self.0));
    }
}

/// A listening socket.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "the file goes with the listener")] SocketFile),
}

/// An accepted connection that belongs to no runtime yet.
#[derive(Debug)]
enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(StdUnixStream),
}

/// Counts a connection as one of a serving thread's, until dropped.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A connection on its way to its serving thread.
#[derive(Debug)]
pub(super) struct Handed {
    accepted: Accepted,
    counted: Counted,
}

/// Where one serving thread gets its connections.
#[derive(Debug, Clone)]
pub(super) struct Outlet {
    pub(super) sender: mpsc::Sender<Handed>,
    open: Arc<AtomicUsize>,
}

impl Outlet {
    /// A way to one serving thread, and the thread's end of it.
    pub(super) fn new() -> (Self, mpsc::Receiver<Handed>) {
        let (sender, receiver) = mpsc::channel(HANDED_OUT_MAX);
        (Self { sender, open: Arc::default() }, receiver)
    }
}

impl Listener {
    /// The TCP address that was bound, with the port that the system chose if it was 0.
    pub(super) fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Without it, answers wait some 40 ms for the peer's delayed acknowledgement.
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream.into_std()?))
            }
            Self::Unix(listener, _) => Ok(Accepted::Unix(listener.accept().await?.0.into_std()?)),
        }
    }

    /// Accepts until dropped, or until a serving thread is gone. A failing accept (no file descriptors left) is logged
    /// and tried again.
    pub(super) async fn hand_out(self, outlets: Vec<Outlet>) {
        loop {
            match self.accept().await {
                Ok(connection) => {
                    let Some(outlet) = outlets.iter().min_by_key(|outlet| outlet.open.load(Relaxed)) else { return };
                    let handed = Handed { accepted: connection, counted: Counted::new(&outlet.open) };
                    if outlet.sender.send(handed).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "ext_proc connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

fn clear_stale(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    let in_use = |why| Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => in_use("the path is taken by something that is no socket"),
        Ok(_) => match StdUnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
            Err(error) => Err(error),
            Ok(_) => in_use("another process listens on this socket"),
        },
    }
}

/// A connection on its serving thread; counted out when dropped.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    _counted: Counted,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Connection {
    /// Registers a connection with the runtime that this is called on, and shakes hands where TLS is spoken.
    ///
    /// # Errors
    /// The client does not speak as it should, or not in time.
    pub(super) async fn adopt(handed: Handed, door: Option<Door>) -> io::Result<Self> {
        let stream = match handed.accepted {
            Accepted::Tcp(stream) => {
                let stream = TcpStream::from_std(stream)?;
                match door {
                    Some(door) => tokio::time::timeout(HANDSHAKE_MAX, enter(stream, &door)).await??,
                    None => Stream::Tcp(stream),
                }
            }
            Accepted::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
        };
        Ok(Self { stream, _counted: handed.counted })
    }
}

/// Shakes hands, unless the client begins in plaintext and may.
async fn enter(stream: TcpStream, door: &Door) -> io::Result<Stream> {
    let mut first = [0];
    if !door.is_required && stream.peek(&mut first).await? == 1 && first != [TLS_HANDSHAKE] {
        return Ok(Stream::Tcp(stream));
    }
    Ok(Stream::Tls(Box::new(door.acceptor.accept(stream).await?)))
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_that_are_bound_refuse_connections_until_they_listen() {
        let folder = std::env::temp_dir().join(format!("fairlead-listener-{}", fastrand::u64(..)));
        let path = folder.join("ext_proc.sock");
        let unix = Bound::new(&ListenAddress::Unix(path.clone())).unwrap();
        let tcp = Bound::new(&ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        let Bound::Tcp(socket) = &tcp else { panic!("not TCP") };
        let address = socket.local_addr().unwrap();
        let refused = Some(io::ErrorKind::ConnectionRefused);
        assert_eq!(StdUnixStream::connect(&path).err().map(|error| error.kind()), refused);
        assert_eq!(std::net::TcpStream::connect(address).err().map(|error| error.kind()), refused);
        let (_unix, _tcp) = (unix.listen().unwrap(), tcp.listen().unwrap());
        assert!(StdUnixStream::connect(&path).is_ok() && std::net::TcpStream::connect(address).is_ok());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_but_nothing_else_and_nobody_living() {
        let folder = std::env::temp_dir().join(format!("fairlead-listener-{}", fastrand::u64(..)));
        let path = folder.join("ext_proc.sock");
        let address = ListenAddress::Unix(path.clone());
        let living = Bound::new(&address).unwrap().listen().unwrap();
        assert_eq!(Bound::new(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let Listener::Unix(socket, _) = &living else { panic!("not a unix socket") };
        assert!(socket.local_addr().is_ok());
        drop(living);
        // What a killed process leaves behind: a socket file without a listener.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(Bound::new(&address).unwrap());
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(Bound::new(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
