//! A way to Redis that can be closed, for one process at a time.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::support::{
    app::{NO_LIMITS, TestApp},
    client::Client,
};

/// Passes everything on to Redis, while it is open.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    address: SocketAddr,
    is_open: Arc<AtomicBool>,
    changed: watch::Sender<()>,
}

impl Gate {
    async fn before(redis: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gate = Self {
            address: listener.local_addr().unwrap(),
            is_open: Arc::new(AtomicBool::new(true)),
            changed: watch::Sender::new(()),
        };
        let this = gate.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                if !this.is_open.load(Ordering::Relaxed) {
                    continue;
                }
                let mut changed = this.changed.subscribe();
                let redis = redis.clone();
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(redis).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = changed.changed() => {}
                    }
                });
            }
        });
        gate
    }

    /// Cuts every connection, and the next ones as they come.
    pub(crate) fn close(&self) {
        self.is_open.store(false, Ordering::Relaxed);
        let _ = self.changed.send(());
    }

    pub(crate) fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }
}

impl TestApp {
    /// An API process with these limits alone, whose way to Redis can be closed.
    pub(crate) async fn limited_behind_a_gate(&self, limits: &str) -> (Client, Gate) {
        // redis://user:password@host:port/0
        let url = Self::redis_url();
        let host = url.rsplit_once('@').or_else(|| url.split_once("://")).unwrap().1;
        let host = host.split('/').next().unwrap();
        let gate = Gate::before(host.to_owned()).await;
        let client = self
            .another_api_with(self.cx.clone(), |settings| {
                settings.common.redis_url = url.replace(host, &gate.address.to_string()).into();
                settings.limits = format!("{NO_LIMITS},{limits}").parse().unwrap();
                settings.trusted_proxies = 1;
            })
            .await;
        (client, gate)
    }
}
