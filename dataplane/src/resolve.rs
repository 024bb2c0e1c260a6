//! Names to addresses, by DNS and the hosts file as `/etc/resolv.conf` says. In this process: the C
//! library's resolver loads plugins, which a static binary cannot.
//!
//! Both families are asked side by side, since a name server that is silent about one must not hold
//! up the other (RFC 8305, section 3): who has waited for the first answer waits a little for the
//! second.
//!
//! Nothing is kept here longer than one look-up: a name that moved, such as that of a replaced
//! control plane, is found at its new address with the next connection. Who asks again and again is
//! told how long an answer holds.

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
    lookup_ip::LookupIp,
    net::{NetError, runtime::TokioRuntimeProvider},
    system_conf::read_system_conf,
};
use tokio::net::TcpStream;

/// What the resolver is made from.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// A question that got lost is asked again after this time at most: whoever waits for the answer
/// has a limit, too.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What the other family's answer may take longer where both are welcome (RFC 8305, section 8).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// Addresses of which family are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Families {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// IPv4; IPv6 counts where there is none.
    V4Preferred,
    /// IPv6, which is waited for; IPv4 counts where there is none.
    V6Preferred,
    /// Both.
    All,
}

impl Families {
    /// How much longer the other family may take once IPv4 is there, or IPv6.
    fn patience(self) -> (Duration, Duration) {
        match self {
            Self::V4 | Self::V6 => (Duration::ZERO, Duration::ZERO),
            Self::V4Preferred => (Duration::ZERO, LONGEST_WAIT),
            Self::V6Preferred => (LONGEST_WAIT, Duration::ZERO),
            Self::All => (RESOLUTION_DELAY, LONGEST_WAIT),
        }
    }
}

/// Looks up names. Clones share their connections to name servers, so a clone belongs on the same
/// runtime.
#[derive(Clone, Default)]
pub struct Resolver {
    built: Arc<Mutex<Option<Built>>>,
}

struct Built {
    /// When the files were changed last; `None` where there is none.
    of: [Option<SystemTime>; 2],
    resolvers: Resolvers,
}

/// One for each family, so that neither waits for the other.
#[derive(Clone)]
struct Resolvers {
    v4: TokioResolver,
    v6: TokioResolver,
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
    pub async fn look_up(&self, name: &str, families: Families) -> Result<Answer, ResolveError> {
        if let Ok(address) = name.parse() {
            return Ok(Answer { addresses: vec![address], valid_for: Duration::MAX });
        }
        let Resolvers { v4, v6 } = self.current()?;
        let (v4, v6) = (v4.lookup_ip(name), v6.lookup_ip(name));
        let found = match families {
            Families::V4 => v4.await.map(Answer::from),
            Families::V6 => v6.await.map(Answer::from),
            _ => side_by_side(v4, v6, families.patience()).await,
        };
        let found = found.and_then(|found| match found.addresses[..] {
            [] => Err(NetError::from("no address")),
            _ => Ok(found),
        });
        found.map_err(|source| ResolveError::LookUp { name: name.to_owned(), source })
    }

    /// Connects to the first address of a name that takes the connection.
    ///
    /// # Errors
    /// The name has no address, or the last address that was tried refused.
    pub async fn connect(&self, to: &HostPort) -> io::Result<TcpStream> {
        let answer = self.look_up(&to.host, Families::All).await.map_err(io::Error::other)?;
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
    fn current(&self) -> Result<Resolvers, ResolveError> {
        let of = FILES.map(|path| fs::metadata(path).and_then(|file| file.modified()).ok());
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        match &*built {
            Some(built) if built.of == of => Ok(built.resolvers.clone()),
            _ => {
                let (config, options) = system();
                let resolvers = build(&config, &options).map_err(ResolveError::Setup)?;
                *built = Some(Built { of, resolvers: resolvers.clone() });
                Ok(resolvers)
            }
        }
    }
}

/// The answers of both families: once one has addresses, the other may take as much longer as
/// `patience` says.
async fn side_by_side(
    v4: impl Future<Output = Result<LookupIp, NetError>>,
    v6: impl Future<Output = Result<LookupIp, NetError>>,
    patience: (Duration, Duration),
) -> Result<Answer, NetError> {
    tokio::pin!(v4, v6);
    let (v4, v6) = tokio::select! {
        v4 = v4.as_mut() => { let v6 = other(&v4, v6, patience.0).await; (Some(v4), v6) }
        v6 = v6.as_mut() => { let v4 = other(&v6, v4, patience.1).await; (v4, Some(v6)) }
    };
    let mut found = Answer { addresses: Vec::new(), valid_for: Duration::MAX };
    let mut failed = None;
    for answer in [v4, v6].into_iter().flatten() {
        match answer.map(Answer::from) {
            Ok(answer) => {
                found.addresses.extend(answer.addresses);
                found.valid_for = found.valid_for.min(answer.valid_for);
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        Some(error) if found.addresses.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// The second answer, which is not waited for longer than `patience` if the first has addresses.
async fn other(
    first: &Result<LookupIp, NetError>,
    second: impl Future<Output = Result<LookupIp, NetError>>,
    patience: Duration,
) -> Option<Result<LookupIp, NetError>> {
    match first {
        Ok(found) if found.iter().next().is_some() => {
            tokio::time::timeout(patience, second).await.ok()
        }
        _ => Some(second.await),
    }
}

impl From<LookupIp> for Answer {
    fn from(found: LookupIp) -> Self {
        let valid_for = found.valid_until().saturating_duration_since(Instant::now());
        Self { addresses: found.iter().collect(), valid_for }
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

fn build(config: &ResolverConfig, options: &ResolverOpts) -> Result<Resolvers, NetError> {
    let of_family = |ip_strategy| {
        let mut options = options.clone();
        options.ip_strategy = ip_strategy;
        options.cache_size = 0;
        options.timeout = options.timeout.min(LONGEST_WAIT);
        let mut builder =
            TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        builder.build()
    };
    Ok(Resolvers {
        v4: of_family(LookupIpStrategy::Ipv4Only)?,
        v6: of_family(LookupIpStrategy::Ipv6Only)?,
    })
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

    /// A name server on loopback that knows one name, at the last of the addresses it was given,
    /// and counts nothing.
    async fn name_server(known: &'static str, addresses: Vec<[u8; 4]>, ttl: u32) -> SocketAddr {
        half_silent_name_server(known, addresses, ttl, None).await
    }

    /// The same, which does not answer questions of one kind.
    async fn half_silent_name_server(
        known: &'static str,
        addresses: Vec<[u8; 4]>,
        ttl: u32,
        silent: Option<RecordType>,
    ) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut datagram = [0; 512];
            let mut addresses = addresses.into_iter().cycle();
            loop {
                let (length, from) = socket.recv_from(&mut datagram).await.unwrap();
                let mut message = Message::from_vec(&datagram[..length]).unwrap();
                let query = message.queries[0].clone();
                if Some(query.query_type()) == silent {
                    continue;
                }
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
        let resolvers =
            build(&ResolverConfig::from_parts(None, search, servers), &options).unwrap();
        let of = FILES.map(|path| fs::metadata(path).and_then(|file| file.modified()).ok());
        Resolver { built: Arc::new(Mutex::new(Some(Built { of, resolvers }))) }
    }

    #[tokio::test]
    async fn a_short_name_is_found_by_its_search_domains_and_again_at_its_new_address() {
        let server = name_server(
            "ferromesh.mesh.svc.cluster.local.",
            vec![[10, 0, 0, 1], [10, 0, 0, 2]],
            30,
        )
        .await;
        let resolver = resolver(server);
        let first = resolver.look_up("ferromesh.mesh.svc", Families::All).await.unwrap();
        assert_eq!(first.addresses, [IpAddr::from([10, 0, 0, 1])]);
        assert!(
            first.valid_for > Duration::from_secs(20) && first.valid_for <= Duration::from_secs(30)
        );
        assert_eq!(
            resolver.look_up("ferromesh.mesh.svc", Families::All).await.unwrap().addresses,
            [IpAddr::from([10, 0, 0, 2])]
        );
        let error = resolver.look_up("nobody", Families::All).await.unwrap_err().to_string();
        assert!(error.starts_with("nobody: "), "{error}");
    }

    #[tokio::test]
    async fn an_address_needs_no_name_server() {
        let answer = Resolver::default().look_up("fd00::1", Families::All).await.unwrap();
        assert_eq!(
            (answer.addresses, answer.valid_for),
            (vec!["fd00::1".parse().unwrap()], Duration::MAX)
        );
    }

    #[tokio::test]
    async fn without_name_servers_localhost_is_known_and_others_fail_soon() {
        let resolvers =
            build(&ResolverConfig::from_name_servers(Vec::new()), &ResolverOpts::default())
                .unwrap();
        let resolver = resolver(([127, 0, 0, 1], 9).into());
        *resolver.built.lock().unwrap() = Some(Built {
            of: FILES.map(|path| fs::metadata(path).and_then(|f| f.modified()).ok()),
            resolvers,
        });
        assert!(
            resolver
                .look_up("localhost", Families::All)
                .await
                .unwrap()
                .addresses
                .contains(&[127, 0, 0, 1].into())
        );
        let looking = tokio::time::timeout(
            Duration::from_secs(10),
            resolver.look_up("example.com", Families::All),
        );
        assert!(looking.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_name_server_that_is_silent_about_one_family_holds_nobody_up() {
        let (name, address) = ("shop.example.com.", [10, 0, 0, 1]);
        let server = half_silent_name_server(name, vec![address], 30, Some(RecordType::AAAA)).await;
        let resolver = resolver(server);
        for families in [Families::All, Families::V4Preferred, Families::V4] {
            let begin = Instant::now();
            let answer = resolver.look_up(name, families).await.unwrap();
            assert_eq!(answer.addresses, [IpAddr::from(address)], "{families:?}");
            // A question of the resolver's waits for two seconds before it is asked again, three
            // times.
            assert!(begin.elapsed() < LONGEST_WAIT, "{families:?}: {:?}", begin.elapsed());
        }
        // Who prefers IPv6 waits for it as long as for one question.
        let begin = Instant::now();
        assert_eq!(
            resolver.look_up(name, Families::V6Preferred).await.unwrap().addresses,
            [IpAddr::from(address)]
        );
        assert!(
            begin.elapsed() >= LONGEST_WAIT && begin.elapsed() < 3 * LONGEST_WAIT,
            "{:?}",
            begin.elapsed()
        );
    }
}
