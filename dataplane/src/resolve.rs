//! Names to addresses, by DNS and the hosts file as `/etc/resolv.conf` says. In this process: the C library's resolver
//! loads plugins, which a static binary cannot.
//!
//! Nothing is kept here longer than one look-up: a name that moved, such as that of a replaced control plane, is found at
//! its new address with the next connection. Who asks again and again is told how long an answer holds.

use std::{
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use ferromesh_proto::bootstrap::HostPort;
use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    system_conf::read_system_conf,
};
use tokio::net::TcpStream;

/// What the resolver is made from.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// A question that got lost is asked again after this time at most: whoever waits for the answer has a limit, too.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Looks up names. Clones share their connections to name servers, so a clone belongs on the same runtime.
#[derive(Clone, Default)]
pub struct Resolver {
    built: Arc<Mutex<Option<Built>>>,
}

struct Built {
    /// When the files were changed last; `None` where there is none.
    of: [Option<SystemTime>; 2],
    resolver: TokioResolver,
}

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The resolver cannot be made.
    #[error("resolver: {0}")]
    Setup(#[source] NetError),
    /// Nobody knows the name, or nobody answers.
    #[error("{name}: {source}")]
    LookUp {
        /// Which name.
        name: String,
        /// What was said.
        source: NetError,
    },
}

/// What a name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// In the order of the answer, IPv4 first; never empty.
    pub addresses: Vec<IpAddr>,
    /// How long that holds; zero where the answer forbids to keep it.
    pub valid_for: Duration,
}

impl Resolver {
    /// The addresses of a name; an address stands for itself, for ever.
    ///
    /// # Errors
    /// [`ResolveError`] names the name.
    pub async fn look_up(&self, name: &str) -> Result<Answer, ResolveError> {
        if let Ok(address) = name.parse() {
            return Ok(Answer { addresses: vec![address], valid_for: Duration::MAX });
        }
        let failed = |source| ResolveError::LookUp { name: name.to_owned(), source };
        let found = self.current()?.lookup_ip(name).await.map_err(failed)?;
        let addresses: Vec<IpAddr> = found.iter().collect();
        if addresses.is_empty() {
            return Err(failed(NetError::from("no address")));
        }
        Ok(Answer { addresses, valid_for: found.valid_until().saturating_duration_since(Instant::now()) })
    }

    /// Connects to the first address of a name that takes the connection.
    ///
    /// # Errors
    /// The name has no address, or the last address that was tried refused.
    pub async fn connect(&self, to: &HostPort) -> io::Result<TcpStream> {
        let answer = self.look_up(&to.host).await.map_err(io::Error::other)?;
        let mut refused = None;
        for address in answer.addresses {
            match TcpStream::connect(SocketAddr::new(address, to.port)).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| io::Error::other("no address")))
    }

    /// The resolver of the files as they are now.
    fn current(&self) -> Result<TokioResolver, ResolveError> {
        let of = FILES.map(|path| fs::metadata(path).and_then(|file| file.modified()).ok());
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        match &*built {
            Some(built) if built.of == of => Ok(built.resolver.clone()),
            _ => {
                let (config, options) = system();
                let resolver = build(config, options).map_err(ResolveError::Setup)?;
                *built = Some(Built { of, resolver: resolver.clone() });
                Ok(resolver)
            }
        }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// What the system says; without name servers the hosts file still counts.
fn system() -> (ResolverConfig, ResolverOpts) {
    read_system_conf().unwrap_or_else(|error| {
        tracing::warn!(%error, "no DNS: only addresses and names in the hosts file can be reached");
        (ResolverConfig::from_name_servers(Vec::new()), ResolverOpts::default())
    })
}

fn build(config: ResolverConfig, mut options: ResolverOpts) -> Result<TokioResolver, NetError> {
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = 0;
    options.timeout = options.timeout.min(LONGEST_WAIT);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build()
}

#[cfg(test)]
mod tests {
    use hickory_resolver::{
        config::{ConnectionConfig, NameServerConfig, ProtocolConfig},
        proto::{
            op::{Message, MessageType, ResponseCode},
            rr::{Name, RData, Record, RecordType, rdata},
        },
    };
    use tokio::net::UdpSocket;

    use super::*;

    /// A name server on loopback that knows one name, at the last of the addresses it was given, and counts nothing.
    async fn name_server(known: &'static str, addresses: Vec<[u8; 4]>, ttl: u32) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut datagram = [0; 512];
            let mut addresses = addresses.into_iter().cycle();
            loop {
                let (length, from) = socket.recv_from(&mut datagram).await.unwrap();
                let mut message = Message::from_vec(&datagram[..length]).unwrap();
                let query = message.queries[0].clone();
                message.metadata.message_type = MessageType::Response;
                if query.name().to_ascii() != known {
                    message.metadata.response_code = ResponseCode::NXDomain;
                } else if query.query_type() == RecordType::A {
                    let [a, b, c, d] = addresses.next().unwrap();
                    let data = RData::A(rdata::A::new(a, b, c, d));
                    message.answers.push(Record::from_rdata(query.name().clone(), ttl, data));
                }
                socket.send_to(&message.to_vec().unwrap(), from).await.unwrap();
            }
        });
        address
    }

    /// A resolver that asks this server only, in the manner of a pod.
    fn resolver(server: SocketAddr) -> Resolver {
        let mut udp = ConnectionConfig::new(ProtocolConfig::Udp);
        udp.port = server.port();
        let servers = vec![NameServerConfig::new(server.ip(), true, vec![udp])];
        let search = ["shop.svc.cluster.local.", "svc.cluster.local.", "cluster.local."];
        let search = search.map(|domain| Name::from_ascii(domain).unwrap()).to_vec();
        let mut options = ResolverOpts::default();
        options.ndots = 5;
        let resolver = build(ResolverConfig::from_parts(None, search, servers), options).unwrap();
        let of = FILES.map(|path| fs::metadata(path).and_then(|file| file.modified()).ok());
        Resolver { built: Arc::new(Mutex::new(Some(Built { of, resolver }))) }
    }

    #[tokio::test]
    async fn a_short_name_is_found_by_its_search_domains_and_again_at_its_new_address() {
        let server = name_server("ferromesh.mesh.svc.cluster.local.", vec![[10, 0, 0, 1], [10, 0, 0, 2]], 30).await;
        let resolver = resolver(server);
        let first = resolver.look_up("ferromesh.mesh.svc").await.unwrap();
        assert_eq!(first.addresses, [IpAddr::from([10, 0, 0, 1])]);
        assert!(first.valid_for > Duration::from_secs(20) && first.valid_for <= Duration::from_secs(30));
        assert_eq!(resolver.look_up("ferromesh.mesh.svc").await.unwrap().addresses, [IpAddr::from([10, 0, 0, 2])]);
        let error = resolver.look_up("nobody").await.unwrap_err().to_string();
        assert!(error.starts_with("nobody: "), "{error}");
    }

    #[tokio::test]
    async fn an_address_needs_no_name_server() {
        let answer = Resolver::default().look_up("fd00::1").await.unwrap();
        assert_eq!((answer.addresses, answer.valid_for), (vec!["fd00::1".parse().unwrap()], Duration::MAX));
    }

    #[tokio::test]
    async fn without_name_servers_localhost_is_known_and_others_fail_soon() {
        let built = build(ResolverConfig::from_name_servers(Vec::new()), ResolverOpts::default()).unwrap();
        let resolver = resolver(([127, 0, 0, 1], 9).into());
        *resolver.built.lock().unwrap() =
            Some(Built { of: FILES.map(|path| fs::metadata(path).and_then(|f| f.modified()).ok()), resolver: built });
        assert!(resolver.look_up("localhost").await.unwrap().addresses.contains(&[127, 0, 0, 1].into()));
        let looking = tokio::time::timeout(Duration::from_secs(10), resolver.look_up("example.com"));
        assert!(looking.await.unwrap().is_err());
    }
}
