//! A TCP proxy on loopback that does what networks do: cuts every connection, or lets them stand and passes nothing.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// What happens to traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Nothing passes, nobody is told.
    Freeze,
}

/// See the module.
pub(crate) struct Proxy {
    port: u16,
    mode: Arc<watch::Sender<Mode>>,
    /// Connections of an older generation are cut.
    generation: Arc<watch::Sender<u64>>,
    open: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) async fn start(target: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let proxy = Self {
            port: listener.local_addr()?.port(),
            mode: Arc::new(watch::Sender::new(Mode::Pass)),
            generation: Arc::new(watch::Sender::new(0)),
            open: Arc::default(),
        };
        let (mode, generation, open) =
            (Arc::clone(&proxy.mode), Arc::clone(&proxy.generation), Arc::clone(&proxy.open));
        tokio::spawn(async move {
            while let Ok((inbound, _)) = listener.accept().await {
                let mode = mode.subscribe();
                let mut generation = generation.subscribe();
                generation.mark_unchanged();
                let open = Arc::clone(&open);
                tokio::spawn(async move {
                    let Ok(outbound) = TcpStream::connect(("127.0.0.1", target)).await else { return };
                    let (client_in, client_out) = inbound.into_split();
                    let (server_in, server_out) = outbound.into_split();
                    open.fetch_add(1, Ordering::SeqCst);
                    tokio::select! {
                        () = pump(client_in, server_out, mode.clone()) => {}
                        () = pump(server_in, client_out, mode) => {}
                        _ = generation.changed() => {}
                    }
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(proxy)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Closes every connection.
    pub(crate) fn cut(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Lets nothing pass, on connections old and new, until [`Self::thaw`].
    pub(crate) fn freeze(&self) {
        self.mode.send_replace(Mode::Freeze);
    }

    pub(crate) fn thaw(&self) {
        self.mode.send_replace(Mode::Pass);
    }

    /// Connections that stand now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(read) = from.read(&mut buffer).await else { return };
        if mode.wait_for(|mode| *mode == Mode::Pass).await.is_err() || read == 0 {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
