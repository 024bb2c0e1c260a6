//! What became of a copy's requests, beside what was expected.

use std::{collections::BTreeSet, time::Duration};

use ferromesh_integration::matrix::{Ask, CaseCopy, is_like};
use futures_util::{StreamExt, stream};

use crate::{client::Answer, mesh::Mesh};

/// Longest wait for what arrives at servers by itself.
const ARRIVAL: Duration = Duration::from_millis(1500);

/// Asks everything that a copy asks, in its order; what is not as it was expected. `attempt` tells
/// what this one asks apart from what others did (`$N` in a path).
pub(crate) async fn differences(mesh: &Mesh, copy: &CaseCopy, attempt: usize) -> Vec<String> {
    let mut found = Vec::new();
    for (number, ask) in copy.asks.iter().enumerate() {
        let ask = &numbered(ask, attempt);
        let before: Vec<usize> =
            ask.arrived.keys().map(|line| mesh.servers.arrived(line)).collect();
        // A time of the case itself, such as one after which a connection is too old.
        tokio::time::sleep(Duration::from_millis(ask.pause)).await;
        let answers = answers(mesh, ask).await;
        let mut wrong = wrong(ask, &answers);
        wrong.extend(no_socket(mesh, ask));
        wrong.extend(not_arrived(mesh, ask, &before).await);
        if !wrong.is_empty() {
            let last = answers.last().map(|answer| format!("{answer:?}")).unwrap_or_default();
            found.push(format!("ask {}: {}; last {last}", number + 1, wrong.join("; ")));
        }
    }
    found
}

fn numbered(ask: &Ask, attempt: usize) -> Ask {
    let own = |text: &str| text.replace("$N", &attempt.to_string());
    Ask {
        path: ask.path.as_deref().map(own),
        arrived: ask.arrived.iter().map(|(line, range)| (own(line), *range)).collect(),
        logged: ask.logged.iter().map(|(line, range)| (own(line), *range)).collect(),
        ..ask.clone()
    }
}

async fn answers(mesh: &Mesh, ask: &Ask) -> Vec<Answer> {
    if ask.together > 0 {
        let each = (0..ask.together).map(|_| mesh.send(ask));
        return stream::iter(each).buffered(ask.together).collect().await;
    }
    let mut answers = Vec::new();
    for number in 0..ask.times {
        if number > 0 {
            tokio::time::sleep(Duration::from_millis(ask.gap)).await;
        }
        answers.push(mesh.send(ask).await);
    }
    answers
}

/// Whether an answer has a line, in which `*` stands for anything.
fn has(answer: &Answer, line: &str) -> bool {
    if let Some(status) = line.strip_prefix("status ") {
        return answer.status.to_string() == status;
    }
    answer.lines.iter().any(|own| is_like(own, line))
}

fn wrong(ask: &Ask, answers: &[Answer]) -> Vec<String> {
    let mut wrong = Vec::new();
    let status = ask.status.or_else(|| ask.count.is_empty().then_some(200));
    for answer in answers {
        if status.is_some_and(|status| status != answer.status) {
            wrong.push(format!("{} instead of {}", answer.status, status.unwrap_or_default()));
        }
        let lacking = ask.has.iter().filter(|line| !has(answer, line));
        wrong.extend(lacking.map(|line| format!("no {line}")));
        let unwanted = ask.lacks.iter().filter(|line| has(answer, line));
        wrong.extend(unwanted.map(|line| format!("there is {line}")));
        let time = u64::try_from(answer.time.as_millis()).unwrap_or(u64::MAX);
        if time < ask.least || ask.most.is_some_and(|most| time > most) {
            wrong.push(format!("{time} ms"));
        }
    }
    for (line, range) in &ask.count {
        let count = answers.iter().filter(|answer| has(answer, line)).count();
        if !within(range, count) {
            wrong.push(format!("{count} times {line}"));
        }
    }
    for (word, range) in &ask.distinct {
        let prefix = format!("{word} ");
        let lines = answers.iter().flat_map(|answer| &answer.lines);
        let lines: BTreeSet<&String> = lines.filter(|line| line.starts_with(&prefix)).collect();
        if !within(range, lines.len()) {
            wrong.push(format!("{lines:?}"));
        }
    }
    wrong.truncate(6);
    wrong
}

fn within([least, most]: &[usize; 2], count: usize) -> bool {
    (*least..=*most).contains(&count)
}

fn no_socket(mesh: &Mesh, ask: &Ask) -> Option<String> {
    let (wanted, from) = (ask.socket.as_ref()?, ask.from.as_deref()?);
    let listed = mesh.sockets(from, &ask.server);
    let found = listed.lines().any(|line| is_like(line, wanted));
    (!found).then(|| format!("no {wanted} among {listed}"))
}

/// What should have come to servers, or been written by proxies, and did not, or too often.
async fn not_arrived(mesh: &Mesh, ask: &Ask, before: &[usize]) -> Vec<String> {
    if ask.arrived.is_empty() && ask.logged.is_empty() {
        return Vec::new();
    }
    let begin = std::time::Instant::now();
    loop {
        let arrived = ask
            .arrived
            .iter()
            .zip(before)
            .map(|((line, range), before)| (line, range, mesh.servers.arrived(line) - before));
        let logged = ask
            .logged
            .iter()
            .map(|(line, range)| (line, range, mesh.logged(|own| is_like(own, line))));
        let wrong = arrived.chain(logged).filter(|(_, range, count)| !within(range, *count));
        let wrong: Vec<String> =
            wrong.map(|(line, _, count)| format!("{count} times came {line}")).collect();
        if wrong.is_empty() || begin.elapsed() > ARRIVAL {
            return wrong;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
