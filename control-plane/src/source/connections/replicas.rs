//! What replicas tell each other of connections: each its own, as text on pages of its own, and it
//! hears the others'.
//!
//! Text says which proxies are connected, an identity and its addresses on a line, and behind the
//! address of a machine of a group, as a word of its own, which group and how it is. What is no longer
//! said lingers, so that a proxy has time to come to another replica. Who dies cannot take back its
//! words: pages whose beat stands still count no more after a while. That time does not pass while
//! the API server is away: nobody can be told of anything then, and what was known holds.

use std::{
    collections::BTreeMap,
    fmt::Write,
    hash::{DefaultHasher, Hash, Hasher},
    mem,
    sync::Arc,
    time::Duration,
};

use ferromesh_proto::SpiffeId;
use ferromesh_xds_translator::ir::{Connection, Member};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{Connections, Crowd};
use crate::{
    kube_cluster::{
        Trouble,
        connection_pages::{COUNT, LARGEST, OtherPages, OwnPages, Page, PageMap, PageMark},
    },
    metrics::Metrics,
};

/// What changes within this time is written together: a write wakes every replica.
const PACE: Duration = Duration::from_secs(2);
/// How often words are repeated, and a write that failed is tried again.
const REPEAT: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(10);
/// How often beats are looked at.
const LOOK: Duration = Duration::from_secs(15);
/// After so many looks at the same beat a page counts no more, and after so many it is removed.
const SILENCE: u32 = 6;
const FORGOTTEN: u32 = 40;
/// How long a proxy counts as connected that its replica does not tell any more.
const LINGER: Duration = Duration::from_secs(10);

/// Tells other replicas who is connected to this one, as long as it is polled.
pub async fn tell(connections: Arc<Connections>, mut own: OwnPages) {
    let mut changes = connections.changes_here();
    let (mut crowd, mut trouble) = (Trouble::default(), Trouble::default());
    let mut due = Instant::now();
    loop {
        changes.mark_unchanged();
        let (texts, left_out) = write_pages(&connections.here());
        if left_out == 0 {
            crowd.over();
        } else {
            crowd.tell("too many proxies are connected to tell of all", &LeftOut(left_out));
        }
        let repeat = Instant::now() >= due;
        let next = match own.write(&texts, repeat).await {
            Ok(()) => {
                trouble.over();
                REPEAT
            }
            Err(error) => {
                trouble.tell("other replicas cannot be told who is connected here", &error);
                AGAIN
            }
        };
        if repeat || next == AGAIN {
            due = Instant::now() + next;
        }
        tokio::select! {
            _ = changes.changed() => sleep(PACE).await,
            () = sleep_until(due), if !texts.is_empty() || next == AGAIN => {}
        }
    }
}

/// How many proxies found no room on the pages.
#[derive(Debug, thiserror::Error)]
#[error("{0} of them found no room")]
struct LeftOut(usize);

/// Hears who is connected to other replicas, as long as it is polled.
pub async fn hear(connections: Arc<Connections>, pages: OtherPages, metrics: Arc<Metrics>) {
    let (sender, mut seen) = watch::channel(None);
    let listen = async {
        let (mut listener, mut looks) = (Listener::default(), interval(LOOK));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let end = listener.next_end();
            tokio::select! {
                changed = seen.changed() => if changed.is_err() { return },
                _ = looks.tick() => look(&mut listener, &pages).await,
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {}
            }
            let Some(heard) = seen.borrow_and_update().clone() else { continue };
            listener.hear(heard);
            let connected = listener.connected(Instant::now());
            let number = i64::try_from(connected.len()).unwrap_or(i64::MAX);
            metrics.connected_elsewhere.set(number);
            connections.elsewhere(connected);
        }
    };
    tokio::select! {
        () = pages.clone().follow(sender) => {}
        () = listen => {}
    }
}

/// Finds out who is silent, and removes what was silent for long.
async fn look(listener: &mut Listener, pages: &OtherPages) {
    match pages.marks().await {
        Ok(marks) => {
            for (name, mark) in listener.look(marks) {
                // Tried again at the next look if it fails.
                let _ = pages.remove(&name, &mark).await;
            }
        }
        Err(error) => {
            tracing::debug!(%error, "beats of other replicas cannot be looked at");
            listener.forgive();
        }
    }
}

/// The pages that say who is connected, and how many found no room. Which page a connection is on
/// depends on itself and the number of pages alone, so that a change is one page's.
fn write_pages(connected: &Crowd) -> (Vec<String>, usize) {
    if connected.is_empty() {
        return (Vec::new(), 0);
    }
    let mut count = 1;
    loop {
        let (pages, left_out) = split(connected, count);
        if left_out == 0 || count == COUNT {
            return (pages, left_out);
        }
        count = (2 * count).min(COUNT);
    }
}

/// A crowd is sorted, so that every identity is written once on a page.
fn split(connected: &Crowd, count: usize) -> (Vec<String>, usize) {
    let mut pages = vec![String::new(); count];
    let mut last = vec![None; count];
    let mut left_out = 0;
    for (connection, member) in connected {
        let Connection { identity, address } = connection;
        let mut hasher = DefaultHasher::new();
        connection.hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % count as u64).expect("below a small number");
        let mut words = String::new();
        if last[at] != Some(identity) {
            let end = if pages[at].is_empty() { "" } else { "\n" };
            write!(words, "{end}{identity}").expect("memory takes everything");
        }
        write!(words, " {address}").expect("memory takes everything");
        if let Some(Member { group, healthy }) = member {
            let mark = MARKS.iter().find(|(_, state)| state == healthy).map_or('?', |(m, _)| *m);
            write!(words, " {address}{mark}{group}").expect("memory takes everything");
        }
        if pages[at].len() + words.len() > LARGEST {
            left_out += 1;
            continue;
        }
        last[at] = Some(identity);
        pages[at].push_str(&words);
    }
    (pages, left_out)
}

/// What stands between an address and the group of its machine: whether the machine is well. None of
/// them is part of an address.
const MARKS: [(char, Option<bool>); 3] = [('+', Some(true)), ('-', Some(false)), ('?', None)];

/// Who is connected by a page; what cannot be read is another version's.
fn read_page(text: &str) -> Crowd {
    let mut crowd = Crowd::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some(Ok(identity)) = words.next().map(str::parse::<SpiffeId>) else { continue };
        for word in words {
            let (address, member) = read_word(word);
            let Ok(address) = address.parse() else { continue };
            let connection = Connection { identity: identity.clone(), address };
            let known = crowd.entry(connection).or_default();
            *known = member.or_else(|| known.take());
        }
    }
    crowd
}

/// An address, and what stands behind it of its machine.
fn read_word(word: &str) -> (&str, Option<Member>) {
    let marked = word.char_indices().find_map(|(at, c)| {
        MARKS.iter().find(|(mark, _)| *mark == c).map(|(_, state)| (at, *state))
    });
    match marked {
        Some((at, healthy)) => {
            (&word[..at], Some(Member { group: word[at + 1..].into(), healthy }))
        }
        None => (word, None),
    }
}

/// What other replicas say, and since when they are silent.
#[derive(Default, Debug)]
struct Listener {
    pages: BTreeMap<String, HeardPage>,
    /// What counted last, without what lingers.
    told: Crowd,
    /// What is told no longer, and until when it counts.
    lingering: BTreeMap<Connection, (Option<Member>, Instant)>,
}

#[derive(Debug)]
struct HeardPage {
    page: Arc<Page>,
    connected: Crowd,
    /// How many looks found the same beat.
    silence: u32,
}

impl Listener {
    /// Takes in what stands there.
    fn hear(&mut self, pages: PageMap) {
        let mut former = mem::take(&mut self.pages);
        for (name, page) in pages {
            let heard = match former.remove(&name) {
                Some(heard) if heard.page == page => heard,
                Some(heard) if heard.page.text == page.text => {
                    HeardPage { page, silence: 0, ..heard }
                }
                _ => HeardPage { connected: read_page(&page.text), page, silence: 0 },
            };
            self.pages.insert(name, heard);
        }
    }

    /// Compares beats with those that were heard; the pages to be removed.
    fn look(&mut self, marks: BTreeMap<String, PageMark>) -> BTreeMap<String, PageMark> {
        let mut forgotten = BTreeMap::new();
        for (name, mark) in marks {
            let Some(heard) = self.pages.get_mut(&name) else { continue };
            if heard.page.beat != mark.beat {
                heard.silence = 0;
                continue;
            }
            heard.silence += 1;
            if heard.silence >= FORGOTTEN {
                forgotten.insert(name, mark);
            }
        }
        forgotten
    }

    /// Nobody can be heard: nobody's silence says anything.
    fn forgive(&mut self) {
        for heard in self.pages.values_mut() {
            // Who counts no more does not come back by that.
            heard.silence = if heard.silence < SILENCE { 0 } else { SILENCE };
        }
    }

    /// Who is connected elsewhere at `now`.
    fn connected(&mut self, now: Instant) -> Crowd {
        let live = self.pages.values().filter(|heard| heard.silence < SILENCE);
        let mut told = Crowd::new();
        for (connection, member) in live.flat_map(|heard| &heard.connected) {
            let known = told.entry(connection.clone()).or_default();
            // Of two replicas, who knows how the machine is knows more.
            if known.as_ref().is_none_or(|known: &Member| known.healthy.is_none()) {
                *known = member.clone().or_else(|| known.take());
            }
        }
        for (gone, member) in self.told.iter().filter(|(gone, _)| !told.contains_key(*gone)) {
            self.lingering.insert(gone.clone(), (member.clone(), now + LINGER));
        }
        self.lingering.retain(|gone, (_, end)| now < *end && !told.contains_key(gone));
        self.told = told;
        let lingering = self.lingering.iter().map(|(gone, (member, _))| (gone, member));
        let all = self.told.iter().chain(lingering);
        all.map(|(connection, member)| (connection.clone(), member.clone())).collect()
    }

    /// When the next connection ends that lingers.
    fn next_end(&self) -> Option<Instant> {
        self.lingering.values().map(|(_, end)| *end).min()
    }
}

#[cfg(test)]
mod tests {
    use ferromesh_proto::{SpiffeId, TrustDomain};
    use proptest::prelude::*;

    use super::*;

    fn proxy(account: &str, address: [u8; 4]) -> Connection {
        let identity = SpiffeId::new(TrustDomain::default(), "shop", account).expect("good names");
        Connection { identity, address: address.into() }
    }

    /// Proxies of no group.
    fn crowd<'a>(connected: impl IntoIterator<Item = &'a Connection>) -> Crowd {
        connected.into_iter().map(|connection| (connection.clone(), None)).collect()
    }

    fn pages(pages: &[(&str, u64, &[Connection])]) -> PageMap {
        let page = |(name, beat, connected): &(&str, u64, &[Connection])| {
            let text = write_pages(&crowd(*connected)).0.pop().unwrap_or_default();
            ((*name).to_owned(), Arc::new(Page { beat: beat.to_string(), text }))
        };
        pages.iter().map(page).collect()
    }

    fn marks(beats: &[(&str, u64)]) -> BTreeMap<String, PageMark> {
        beats.iter().map(|(name, beat)| ((*name).to_owned(), PageMark::of_beat(*beat))).collect()
    }

    #[test]
    fn an_identity_is_written_once_and_nonsense_is_passed_over() {
        let connected = [proxy("cart", [10, 0, 0, 1]), proxy("cart", [10, 0, 0, 2])];
        let (written, left_out) = write_pages(&crowd(&connected));
        let text = "spiffe://cluster.local/ns/shop/sa/cart 10.0.0.1 10.0.0.2";
        assert_eq!((written.as_slice(), left_out), ([text.to_owned()].as_slice(), 0));
        let nonsense = format!("v2 10.0.0.9\n\nspiffe://x 1.2.3.4\n{text} ten ::1\n");
        let mut expected = crowd(&connected);
        let address = "::1".parse().expect("an address");
        expected.insert(Connection { address, ..proxy("cart", [0; 4]) }, None);
        assert_eq!(read_page(&nonsense), expected);
    }

    #[test]
    fn many_connections_are_several_pages_and_too_many_are_counted() {
        let all = |number: u32| -> Crowd {
            let long = "a".repeat(60);
            let name = |n: u32| format!("{long}.{long}.{long}.{}", n % 7_000);
            let each =
                |n: u32| Connection { address: n.to_be_bytes().into(), ..proxy(&name(n), [0; 4]) };
            (0..number).map(|n| (each(n), None)).collect()
        };
        let some = all(7_000);
        let (written, left_out) = write_pages(&some);
        assert!(written.len() > 1 && written.len() < COUNT && left_out == 0, "{}", written.len());
        assert!(written.iter().all(|page| page.len() <= LARGEST));
        let read: Crowd = written.iter().flat_map(|page| read_page(page)).collect();
        assert_eq!(read, some);
        let (written, left_out) = write_pages(&all(60_000));
        let told: usize = written.iter().map(|page| read_page(page).len()).sum();
        assert_eq!((written.len(), told + left_out), (COUNT, 60_000));
        assert!(left_out > 0);
    }

    #[test]
    fn what_is_no_longer_told_lingers_unless_it_is_told_again() {
        let mut listener = Listener::default();
        let (one, two) = (proxy("cart", [10, 0, 0, 1]), proxy("cart", [10, 0, 0, 2]));
        let (start, all) = (Instant::now(), crowd([&one, &two]));
        listener.hear(pages(&[("a", 1, &[one.clone(), two.clone()])]));
        assert_eq!((listener.connected(start), listener.next_end()), (all.clone(), None));
        listener.hear(PageMap::new());
        assert_eq!(
            (listener.connected(start), listener.next_end()),
            (all.clone(), Some(start + LINGER))
        );
        // One of them came to another replica.
        listener.hear(pages(&[("b", 1, std::slice::from_ref(&two))]));
        assert_eq!(listener.connected(start + LINGER / 2), all);
        assert_eq!(listener.connected(start + LINGER), crowd([&two]));
        assert_eq!(listener.next_end(), None);
    }

    #[test]
    fn pages_whose_beat_stands_still_count_no_more_and_are_removed_later() {
        let mut listener = Listener::default();
        let (one, now) = (proxy("cart", [10, 0, 0, 1]), Instant::now());
        listener.hear(pages(&[("a", 1, std::slice::from_ref(&one))]));
        let counts = |listener: &mut Listener| {
            listener.connected(now);
            !listener.connected(now + LINGER).is_empty()
        };
        for _ in 1..SILENCE {
            assert_eq!(listener.look(marks(&[("a", 1)])), BTreeMap::new());
            assert!(counts(&mut listener));
        }
        // While nobody answers, nobody is silent; a new beat is a word.
        listener.forgive();
        for beat in [2, 2, 2] {
            listener.look(marks(&[("a", beat)]));
        }
        assert!(counts(&mut listener));
        listener.hear(pages(&[("a", 2, std::slice::from_ref(&one))]));
        for at in 1..=FORGOTTEN {
            let forgotten = listener.look(marks(&[("a", 2)]));
            assert_eq!(forgotten.len(), usize::from(at >= FORGOTTEN), "look {at}");
            assert_eq!(counts(&mut listener), at < SILENCE, "look {at}");
        }
        listener.forgive();
        assert!(!counts(&mut listener), "who was silent is not heard by nobody's answer");
        listener.hear(pages(&[("a", 3, std::slice::from_ref(&one))]));
        assert!(counts(&mut listener), "it lives");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            connected in prop::collection::btree_map(
                (0..9_u8, any::<[u8; 4]>()), prop::option::of((0..3_u8, any::<Option<bool>>())), 0..60,
            )
        ) {
            let member = |(n, healthy)| Member { group: format!("vms-{n}").into(), healthy };
            let connected: Crowd = connected
                .into_iter()
                .map(|((n, at), said)| (proxy(&format!("a{n}"), at), said.map(member)))
                .collect();
            let (written, left_out) = write_pages(&connected);
            prop_assert_eq!(left_out, 0);
            let read: Crowd = written.iter().flat_map(|page| read_page(page)).collect();
            prop_assert_eq!(read, connected);
        }
    }
}
