//! TLS in front of a server, with a certificate of an authority of our own.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sink_s3::Location;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use super::errors::failure;
use super::servers::on_servers;

/// A TLS end. Dropping it closes it.
struct Front {
    address: SocketAddr,
    /// The authority's certificate, as PEM.
    authority: String,
    runtime: Option<Runtime>,
}

impl Front {
    fn new(upstream: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()])
            .unwrap()
            .signed_by(&key, &authority)
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let runtime = Runtime::new().unwrap();
        let upstream = upstream.to_owned();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
                tokio::spawn(async move {
                    // a client that does not trust us goes
                    let Ok(mut client) = acceptor.accept(client).await else {
                        return;
                    };
                    let mut server = tokio::net::TcpStream::connect(upstream).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self {
            address,
            authority: authority.pem(),
            runtime: Some(runtime),
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[test]
fn a_server_whose_authority_is_named_is_trusted_and_no_other_is() {
    on_servers("a_server_whose_authority_is_named", |server| {
        let mut world = server.world(2);
        world.produce(110, Some(13));
        let front = Front::new(server.address());
        let file = |name: &str, text: &str| -> PathBuf {
            let file = world.dir.path().join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        let ours = file("ours.pem", &front.authority);
        let other = file("other.pem", &Front::new(server.address()).authority);
        let at = |ca_file: Option<PathBuf>| Location {
            endpoint: Some(format!("https://{}", front.address)),
            ca_file,
            ..server.location()
        };
        for ca_file in [None, Some(other)] {
            let text = failure(server, &world, at(ca_file));
            assert!(text.contains("set sink_s3.ca_file"), "{text}");
        }
        sink_s3::run(server.options_at(&world, at(Some(ours)))).unwrap();
        world.check();
    });
}

#[test]
fn a_wrong_scheme_is_told_apart_from_a_wrong_address() {
    on_servers("a_wrong_scheme", |server| {
        let world = server.world(1);
        let endpoint = Some(server.endpoint.replace("http://", "https://"));
        let text = failure(
            server,
            &world,
            Location {
                endpoint,
                ..server.location()
            },
        );
        assert!(
            text.contains("begin sink_s3.endpoint with http://"),
            "{text}"
        );
    });
}
