//! An SMTP server that keeps every mail it accepts, and a page to read them.
//!
//! It holds what real servers hold clients to (command order, CRLF, line and message size), so
//! a client that works here works elsewhere. Mails live in memory and end with the process.

mod fault;
mod line;
mod mail;
mod page;
mod shelf;
mod smtp;

use std::{io, net::SocketAddr, sync::Arc};

use poem::{Route, listener::TcpAcceptor};
use tokio::{net::TcpListener, task::JoinSet};

use self::shelf::Shelf;
pub use self::{fault::Fault, mail::Mail};

/// A running inbox; dropping it closes both ports and every SMTP connection.
#[derive(Debug)]
pub struct Inbox {
    shelf: Arc<Shelf>,
    smtp_addr: SocketAddr,
    http_addr: SocketAddr,
    _servers: JoinSet<()>,
}

impl Inbox {
    /// Accepts mail at `smtp` and shows it at `http`; port 0 means any free port.
    pub async fn start(smtp: SocketAddr, http: SocketAddr) -> io::Result<Self> {
        Self::start_beside(smtp, http, Route::new()).await
    }

    /// The same, on an HTTP port that serves `others` as well.
    pub async fn start_beside(
        smtp: SocketAddr,
        http: SocketAddr,
        others: Route,
    ) -> io::Result<Self> {
        let smtp_listener = bind(smtp).await?;
        let http_listener = bind(http).await?;
        let smtp_addr = smtp_listener.local_addr()?;
        let http_addr = http_listener.local_addr()?;
        let http_server = poem::Server::new_with_acceptor(TcpAcceptor::from_tokio(http_listener)?);
        let shelf = Arc::new(Shelf::default());

        let mut servers = JoinSet::new();
        servers.spawn(smtp::serve(smtp_listener, Arc::clone(&shelf)));
        let pages = page::routes(Arc::clone(&shelf), others);
        servers.spawn(async move {
            // Only binding can fail, and that has happened.
            drop(http_server.run(pages).await);
        });

        Ok(Self { shelf, smtp_addr, http_addr, _servers: servers })
    }

    pub fn smtp_addr(&self) -> SocketAddr {
        self.smtp_addr
    }

    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Every mail in the order of acceptance.
    ///
    /// A mail is here before the client hears that it was accepted.
    pub fn mails(&self) -> Vec<Arc<Mail>> {
        self.shelf.mails()
    }

    /// Forgets every mail.
    pub fn clear(&self) {
        self.shelf.clear();
    }

    /// Strikes the next `times` clients with `fault`, after the faults that were asked for before.
    pub fn fail_next(&self, fault: Fault, times: u32) {
        self.shelf.faults().strike_next(fault, times);
    }

    /// Strikes every client with `fault` until this is called again; `None` ends every fault,
    /// those of [`fail_next`](Self::fail_next) too.
    ///
    /// While `fail_next` has strikes left, they come first.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.shelf.faults().strike_always(fault);
    }
}

/// Listens at `addr`; the error names it, because "address in use" alone helps nobody.
pub(crate) async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen at {addr}: {error}")))
}
