//! A way to a server that can be cut.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Forwards connections to a server until it is cut.
pub(crate) struct Proxy {
    address: SocketAddr,
    server: String,
    /// Whether what is sent stays where it is, with every connection open.
    frozen: watch::Sender<bool>,
    running: Option<tokio::task::JoinHandle<()>>,
}

impl Proxy {
    pub(crate) async fn to(server: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut proxy =
            Self { address, server: server.into(), frozen: watch::Sender::new(false), running: None };
        proxy.run(listener);
        proxy
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections and refuses new ones.
    pub(crate) async fn cut(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
    }

    /// Takes connections again, at the same address.
    pub(crate) async fn mend(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.run(listener);
    }

    /// From now on nothing comes through, but nothing ends either.
    pub(crate) fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    /// Lets through what was held up, and what comes.
    pub(crate) fn thaw(&self) {
        self.frozen.send_replace(false);
    }

    fn run(&mut self, listener: TcpListener) {
        let server = self.server.clone();
        let frozen = self.frozen.subscribe();
        self.running = Some(tokio::spawn(async move {
            // Dropped with this task, and its connections with it.
            let mut connections = JoinSet::new();
            loop {
                let Ok((mut client, _)) = listener.accept().await else { return };
                let (server, mut frozen) = (server.clone(), frozen.clone());
                connections.spawn(async move {
                    let Ok(mut server) = TcpStream::connect(server).await else { return };
                    loop {
                        // A copy that is given up loses nothing that it has read: it writes before it reads on,
                        // unless the reader is slow, which these are not.
                        tokio::select! {
                            _ = frozen.wait_for(|frozen| *frozen) => {}
                            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
                        }
                        let _ = frozen.wait_for(|frozen| !*frozen).await;
                    }
                });
            }
        }));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}
