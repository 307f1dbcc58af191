//! A TCP proxy on loopback that does what networks do: cuts every connection, refuses new ones, delays bytes, or lets
//! connections stand and passes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What happens to traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Every chunk arrives this much later, in each direction.
    Delay(Duration),
    /// Nothing passes, nobody is told.
    Freeze,
    /// What clients send passes, what they are answered does not.
    Mute,
    /// New connections are closed at once.
    Refuse,
}

/// See the module. It ends with the runtime that it was started on.
#[derive(Debug, Clone)]
pub struct Proxy {
    port: u16,
    mode: Arc<watch::Sender<Mode>>,
    /// Connections of an older generation are cut.
    generation: Arc<watch::Sender<u64>>,
    open: Arc<AtomicUsize>,
}

impl Proxy {
    /// Listens on a free port and leads to `target`, another port on loopback.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start(target: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let proxy = Self {
            port: listener.local_addr()?.port(),
            mode: Arc::new(watch::Sender::new(Mode::Pass)),
            generation: Arc::new(watch::Sender::new(0)),
            open: Arc::default(),
        };
        let serving = proxy.clone();
        tokio::spawn(async move {
            while let Ok((inbound, _)) = listener.accept().await {
                if *serving.mode.borrow() != Mode::Refuse {
                    tokio::spawn(serving.clone().carry(inbound, target));
                }
            }
        });
        Ok(proxy)
    }

    async fn carry(self, inbound: TcpStream, target: u16) {
        let mut generation = self.generation.subscribe();
        let Ok(outbound) = TcpStream::connect(("127.0.0.1", target)).await else { return };
        // Latency is this proxy's to choose; without it, a failure only means delay.
        let _ = (inbound.set_nodelay(true), outbound.set_nodelay(true));
        let (client_in, client_out) = inbound.into_split();
        let (server_in, server_out) = outbound.into_split();
        self.open.fetch_add(1, Ordering::SeqCst);
        tokio::select! {
            () = pump(client_in, server_out, self.mode.subscribe(), &[Mode::Freeze]) => {}
            () = pump(server_in, client_out, self.mode.subscribe(), &[Mode::Freeze, Mode::Mute]) => {}
            _ = generation.changed() => {}
        }
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes every connection.
    pub fn cut(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Closes every connection and takes none, until [`Self::thaw`].
    pub fn refuse(&self) {
        self.mode.send_replace(Mode::Refuse);
        self.cut();
    }

    /// Delays everything, until [`Self::thaw`].
    pub fn delay(&self, by: Duration) {
        self.mode.send_replace(Mode::Delay(by));
    }

    /// Lets nothing pass, on connections old and new, until [`Self::thaw`].
    pub fn freeze(&self) {
        self.mode.send_replace(Mode::Freeze);
    }

    /// Lets requests pass and no answers, until [`Self::thaw`].
    pub fn mute(&self) {
        self.mode.send_replace(Mode::Mute);
    }

    /// Passes everything again, what was held back first.
    pub fn thaw(&self) {
        self.mode.send_replace(Mode::Pass);
    }

    /// Connections that stand now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

/// Carries one direction until it ends; nothing passes in the modes of `held`.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    held: &[Mode],
) {
    // Chunks under way, so that a delay does not cost throughput.
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    let reading = async move {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            if sender.send((Instant::now(), buffer[..read].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((read_at, chunk)) = receiver.recv().await {
            let Ok(mode) = mode.wait_for(|mode| !held.contains(mode)).await.map(|mode| *mode) else {
                return;
            };
            if let Mode::Delay(by) = mode {
                tokio::time::sleep_until(read_at + by).await;
            }
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}
