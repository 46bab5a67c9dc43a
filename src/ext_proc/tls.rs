//! TLS for ext_proc: which certificate is shown, and when it is read again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::config::{Listen, TlsMode};
use crate::files::read_regular;

/// How often the files are looked at. Kubernetes itself takes about a minute to renew a mounted secret.
const POLL: Duration = Duration::from_secs(2);
/// Longest time that reading them may take.
const READ_MAX: Duration = Duration::from_secs(10);
/// Largest file of a certificate or a key, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Names in a self-signed certificate; gateways that accept one do not look at it.
const SELF_SIGNED_NAME: &str = "fairlead";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read \"{path}\"")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not PEM, or has none of what is looked for.
    #[error("\"{path}\" is not in PEM form: {fault}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// Certificate and key do not fit, or cannot be used.
    #[error("certificate and key cannot be used")]
    Unusable(#[from] rustls::Error),
    /// No self-signed certificate could be made.
    #[error("no self-signed certificate could be made")]
    SelfSigned(#[from] rcgen::Error),
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

/// How connections are taken in where TLS is spoken.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) acceptor: TlsAcceptor,
    /// Plaintext is not taken.
    pub(super) is_required: bool,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("is_required", &self.is_required).finish_non_exhaustive()
    }
}

/// The certificate that is shown now.
#[derive(Debug)]
pub(super) struct Certificate {
    current: ArcSwap<CertifiedKey>,
    /// Where it is read from; none for a self-signed one.
    folder: Option<PathBuf>,
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl Certificate {
    /// Reads it from the folder, or makes a self-signed one.
    pub(super) async fn new(folder: Option<&Path>) -> Result<Self, TlsError> {
        let key = match folder {
            Some(folder) => parse(folder, &Files::read(folder).await?)?,
            None => self_signed()?,
        };
        Ok(Self { current: ArcSwap::from_pointee(key), folder: folder.map(Path::to_owned) })
    }

    /// Reads it again whenever the files have changed; one that is faulty is passed over. Never ends.
    pub(super) async fn follow(self: Arc<Self>) {
        let Some(folder) = &self.folder else { return std::future::pending().await };
        let mut seen = Files::read(folder).await.ok();
        loop {
            tokio::time::sleep(POLL).await;
            let files = Files::read(folder).await.ok();
            if files == seen {
                continue;
            }
            // While a renewal is under way, the two files may not fit: they are tried again as they change.
            match files.as_ref().map(|files| parse(folder, files)) {
                Some(Ok(key)) => {
                    self.current.store(Arc::new(key));
                    info!(folder = %folder.display(), "the renewed certificate is in use");
                }
                Some(Err(error)) => warn!(%error, "the last good certificate stays in use"),
                None => warn!(folder = %folder.display(), "certificate files are gone; the last good one stays in use"),
            }
            seen = files;
        }
    }
}

/// The two files as they are.
#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    /// Reads both, on a thread that is left behind should the file system not answer.
    async fn read(folder: &Path) -> Result<Self, TlsError> {
        let of = folder.to_owned();
        let reading = tokio::task::spawn_blocking(move || Self::read_now(&of));
        let late = || TlsError::Read { path: folder.to_owned(), source: io::ErrorKind::TimedOut.into() };
        let read = tokio::time::timeout(READ_MAX, reading).await.map_err(|_| late())?;
        read.map_err(|error| TlsError::Read { path: folder.to_owned(), source: io::Error::other(error) })?
    }

    fn read_now(folder: &Path) -> Result<Self, TlsError> {
        let read = |name: &str| {
            let path = folder.join(name);
            read_regular(&path, FILE_BYTES_MAX).map_err(|source| TlsError::Read { path, source })
        };
        Ok(Self { certificate: read("tls.crt")?, key: read("tls.key")? })
    }
}

fn parse(folder: &Path, files: &Files) -> Result<CertifiedKey, TlsError> {
    let fault = |name: &str, fault: String| TlsError::Pem { path: folder.join(name), fault };
    let chain = CertificateDer::pem_slice_iter(&files.certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| fault("tls.crt", error.to_string()))?;
    if chain.is_empty() {
        return Err(fault("tls.crt", "there is no certificate in it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|error| fault("tls.key", error.to_string()))?;
    Ok(CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())?)
}

fn self_signed() -> Result<CertifiedKey, TlsError> {
    let made = rcgen::generate_simple_self_signed([SELF_SIGNED_NAME.to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    Ok(CertifiedKey::from_der(vec![made.cert.der().clone()], key, &aws_lc_rs::default_provider())?)
}

/// What `listen` asks for: the door, and the certificate behind it, to be followed.
pub(super) async fn open(listen: &Listen) -> Result<Option<(Door, Arc<Certificate>)>, TlsError> {
    let is_required = match listen.tls {
        TlsMode::Off => return Ok(None),
        TlsMode::Accepted => false,
        TlsMode::Required => true,
    };
    let certificate = Arc::new(Certificate::new(listen.certificate.as_deref()).await?);
    let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
    // gRPC is HTTP/2; gateways do without ALPN only in plaintext.
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Some((Door { acceptor: TlsAcceptor::from(Arc::new(config)), is_required }, certificate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("fairlead-tls-{}", fastrand::u64(..)));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn write(folder: &Path, name: &str) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(folder.join("tls.crt"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
        made.cert.der().to_vec()
    }

    fn shown(certificate: &Certificate) -> Vec<u8> {
        certificate.current.load().cert.first().unwrap().to_vec()
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_certificate_is_taken_and_a_faulty_one_is_not() {
        let folder = folder();
        let first = write(&folder, "a");
        let certificate = Arc::new(Certificate::new(Some(&folder)).await.unwrap());
        assert_eq!(shown(&certificate), first);
        let following = tokio_util::task::AbortOnDropHandle::new(
            tokio_util::task::TaskTracker::new().spawn(Arc::clone(&certificate).follow()),
        );
        tokio::time::sleep(POLL / 2).await;
        std::fs::write(folder.join("tls.key"), "nonsense").unwrap();
        tokio::time::sleep(POLL * 3).await;
        assert_eq!(shown(&certificate), first);
        let second = write(&folder, "b");
        for _ in 0..100 {
            tokio::time::sleep(POLL).await;
            if shown(&certificate) == second {
                break;
            }
        }
        assert_eq!(shown(&certificate), second);
        drop(following);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_files_is_said() {
        let folder = folder();
        let error = Certificate::new(Some(&folder)).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot read \"") && error.ends_with("tls.crt\""), "{error}");
        write(&folder, "a");
        let other = rcgen::KeyPair::generate().unwrap();
        std::fs::write(folder.join("tls.key"), other.serialize_pem()).unwrap();
        let error = Certificate::new(Some(&folder)).await.unwrap_err();
        assert!(matches!(error, TlsError::Unusable(_)), "{error}");
        std::fs::write(folder.join("tls.crt"), "").unwrap();
        let error = Certificate::new(Some(&folder)).await.unwrap_err().to_string();
        assert!(error.ends_with("there is no certificate in it"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
