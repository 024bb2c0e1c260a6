//! The protocol's rules as transcripts: what a client says, what the world does, what the server
//! answers.
//!
//! A step is one line. `CDS`, `CDS +a -b`, `CDS ~a=1` (delta) and `CDS []`, `CDS [a b]` (state of
//! the world) are requests without nonce; `ack`, `nack MESSAGE` and `stale` after the type add the
//! nonce of its newest response, or an older one. `set CDS.a=2 EDS.b=1 LDS.c` edits the view
//! (without a value: removes); `secret a=1`; `tick N`; `refused` asks what stands refused;
//! `reconnect` begins another stream that knows of it. Expected: every response that goes out, as
//! `TYPE name=version … -removed`, joined by `; `.

use std::sync::Arc;

use ferromesh_proto::{
    ResourceType, Version,
    discovery::{DeltaDiscoveryRequest, DiscoveryRequest, Status},
};

use super::{
    Response, Session, Variant,
    fixture::{Draft, kind, resource},
    session::Verdict,
};

/// A stream, its world, and the nonces it was sent.
struct Stage {
    session: Session,
    world: Draft,
    variant: Variant,
    nonces: [Vec<String>; ResourceType::COUNT],
    versions: [String; ResourceType::COUNT],
    names: [Vec<String>; ResourceType::COUNT],
}

impl Stage {
    fn new(variant: Variant, world: &str) -> Self {
        let mut draft = Draft::new("shop");
        edit(&mut draft, world);
        let session = Session::new(7, variant, vec![draft.publish()]);
        Self {
            session,
            world: draft,
            variant,
            nonces: Default::default(),
            versions: Default::default(),
            names: Default::default(),
        }
    }

    fn step(&mut self, line: &str) -> String {
        let verdict = match line.split_once(' ').unwrap_or((line, "")) {
            ("set", edits) => {
                edit(&mut self.world, edits);
                self.session.on_view(self.world.publish());
                None
            }
            ("secret", text) => {
                let (name, version) = text.split_once('=').expect("name=version");
                let secret = version.parse().ok().map(|v| resource(name, v));
                self.session.on_secret(&name.into(), secret);
                None
            }
            ("tick", n) => {
                (0..n.parse().expect("a number")).for_each(|_| self.session.tick());
                None
            }
            ("refused", _) => return self.refused(),
            ("reconnect", _) => {
                let refused = self.session.outstanding();
                self.session = Session::new(8, self.variant, vec![self.world.publish()]);
                self.session.remember(&refused);
                None
            }
            (short, text) => self.request(kind(short), text),
        };
        let refused = verdict.and_then(|v| match v {
            Verdict::Refused(r) => Some(
                format!("!{} {}", r.kind.short_name(), r.resources.join(" ")).trim_end().to_owned(),
            ),
            Verdict::Accepted(_) => None,
        });
        let mut said: Vec<String> = refused.into_iter().collect();
        while let Some(response) = self.session.next_response() {
            said.push(self.note(&response));
        }
        said.join("; ")
    }

    fn refused(&mut self) -> String {
        let resources = self.session.outstanding().into_iter();
        resources
            .map(|(kind, name)| format!("{}.{name}", kind.short_name()))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Remembers a response's nonce and writes it down.
    fn note(&mut self, response: &Response) -> String {
        let kind = response.kind.clone().expect("a type of ours");
        assert!(self.nonces.iter().flatten().all(|n| *n != response.nonce), "nonce used twice");
        self.nonces[kind.index()].push(response.nonce.clone());
        self.versions[kind.index()] = response.version.to_string();
        let mut names: Vec<&str> = response.resources.iter().map(|r| r.name.as_ref()).collect();
        names.extend(response.removed.iter().map(AsRef::as_ref));
        names.sort_unstable();
        assert!(names.windows(2).all(|w| w[0] != w[1]), "a name twice in one response: {names:?}");
        let mut sent: Vec<String> =
            response.resources.iter().map(|r| format!("{}={}", r.name, r.version.0)).collect();
        sent.sort_unstable();
        let removed = response.removed.iter().map(|n| format!("-{n}"));
        [kind.short_name().to_owned()]
            .into_iter()
            .chain(sent)
            .chain(removed)
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn request(&mut self, kind: ResourceType, text: &str) -> Option<Verdict> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let newest = self.nonces[kind.index()].last().cloned().unwrap_or_default();
        let (nonce, error, rest) = match word {
            "ack" => (newest, None, rest),
            "nack" => (newest, Some(Status { code: 3, message: rest.to_owned() }), ""),
            "stale" => (
                self.nonces[kind.index()].iter().rev().nth(1).cloned().unwrap_or("7-999".into()),
                None,
                rest,
            ),
            _ => (String::new(), None, text),
        };
        match self.variant {
            Variant::Sotw => self.sotw(kind, nonce, error, rest),
            Variant::Delta => self.delta(kind, nonce, error, rest),
        }
    }

    fn sotw(
        &mut self,
        kind: ResourceType,
        response_nonce: String,
        error_detail: Option<Status>,
        names: &str,
    ) -> Option<Verdict> {
        let listed = names.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
        if let Some(listed) = listed {
            self.names[kind.index()] =
                listed.split_whitespace().map(|n| n.replace("''", "")).collect();
        }
        let request = DiscoveryRequest {
            version_info: self.versions[kind.index()].clone(),
            resource_names: self.names[kind.index()].clone(),
            type_url: kind.type_url().to_owned(),
            response_nonce,
            error_detail,
            ..Default::default()
        };
        self.session.on_sotw(request).expect("a request in order")
    }

    fn delta(
        &mut self,
        kind: ResourceType,
        response_nonce: String,
        error_detail: Option<Status>,
        words: &str,
    ) -> Option<Verdict> {
        let mut request = DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            response_nonce,
            error_detail,
            ..Default::default()
        };
        for word in words.split_whitespace() {
            let (sign, name) = word.split_at(1);
            match sign {
                "+" => request.resource_names_subscribe.push(name.to_owned()),
                "-" => request.resource_names_unsubscribe.push(name.to_owned()),
                _ => {
                    let (name, version) = name.split_once('=').expect("name=version");
                    let version = version
                        .parse()
                        .map_or_else(|_| version.to_owned(), |v| Version(v).to_string());
                    request.initial_resource_versions.insert(name.to_owned(), version);
                }
            }
        }
        self.session.on_delta(request).expect("a request in order")
    }
}

fn edit(world: &mut Draft, edits: &str) {
    let parse = |word: &str| {
        let (short, rest) = word.split_once('.').expect("TYPE.name");
        let (name, version) = rest.split_once('=').unwrap_or((rest, ""));
        (kind(short), name.to_owned(), version.parse().ok())
    };
    let edits: Vec<_> = edits.split_whitespace().map(parse).collect();
    let edits: Vec<_> = edits.iter().map(|(k, n, v)| (*k, n.as_str(), *v)).collect();
    world.edit(&edits);
}

#[track_caller]
fn check(variant: Variant, world: &str, script: &[(&str, &str)]) {
    let mut stage = Stage::new(variant, world);
    for (i, (line, expected)) in script.iter().enumerate() {
        assert_eq!(stage.step(line), *expected, "step {i}: {line:?}");
    }
}

const MESH: &str = "CDS.a=1 CDS.b=1 EDS.a=1 EDS.b=1 LDS.l=1 RDS.r=1";

#[test]
fn envoy_starts_over_delta() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("CDS", "CDS a=1 b=1"),
            ("EDS +a +b", "EDS a=1 b=1"),
            ("CDS ack", ""),
            ("LDS", "LDS l=1"),
            ("EDS ack", ""),
            ("RDS +r", "RDS r=1"),
            ("LDS ack", ""),
            ("RDS ack", ""),
            ("set EDS.a=2", "EDS a=2"),
            ("EDS ack", ""),
        ],
    );
}

#[test]
fn envoy_starts_over_state_of_the_world() {
    check(
        Variant::Sotw,
        MESH,
        &[
            ("CDS []", "CDS a=1 b=1"),
            ("EDS [a b]", "EDS a=1 b=1"),
            ("CDS ack", ""),
            ("EDS ack", ""),
            ("LDS []", "LDS l=1"),
            ("RDS [r]", "RDS r=1"),
            ("LDS ack", ""),
            ("RDS ack", ""),
            ("set EDS.a=2", "EDS a=2"),
            ("EDS ack", ""),
        ],
    );
}

#[test]
fn a_changed_cluster_is_followed_by_its_unchanged_endpoints() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("CDS", "CDS a=1 b=1"),
            ("EDS +a +b", "EDS a=1 b=1"),
            ("CDS ack", ""),
            ("EDS ack", ""),
            ("set CDS.a=2", "CDS a=2; EDS a=1"),
            ("CDS ack", ""),
            ("EDS ack", ""),
        ],
    );
    check(
        Variant::Sotw,
        MESH,
        &[
            ("CDS []", "CDS a=1 b=1"),
            ("EDS [a b]", "EDS a=1 b=1"),
            ("CDS ack", ""),
            ("EDS ack", ""),
            ("set CDS.a=2", "CDS a=2 b=1; EDS a=1"),
            // Envoy repeats its endpoints request before it has seen the new ones.
            ("EDS stale", ""),
            ("CDS ack", ""),
            ("EDS ack", ""),
        ],
    );
}

#[test]
fn a_new_cluster_waits_for_the_client_to_ask_for_its_endpoints_and_routes_wait_for_both() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("CDS", "CDS a=1 b=1"),
            ("EDS +a +b", "EDS a=1 b=1"),
            ("CDS ack", ""),
            ("EDS ack", ""),
            ("LDS", "LDS l=1"),
            ("LDS ack", ""),
            ("RDS +r", "RDS r=1"),
            ("RDS ack", ""),
            ("set CDS.c=1 EDS.c=1 RDS.r=2", "CDS c=1"),
            ("EDS +c", "EDS c=1"),
            ("CDS ack", ""),
            ("EDS ack", "RDS r=2"),
            ("RDS ack", ""),
        ],
    );
}

#[test]
fn routes_do_not_wait_for_ever() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("CDS", "CDS a=1 b=1"),
            ("EDS +a +b", "EDS a=1 b=1"),
            ("CDS ack", ""),
            ("EDS ack", ""),
            ("RDS +r", "RDS r=1"),
            ("RDS ack", ""),
            ("set CDS.c=1 EDS.c=1 RDS.r=2", "CDS c=1"),
            ("CDS ack", ""),
            ("tick 4", ""),
            ("tick 1", "RDS r=2"),
        ],
    );
}

#[test]
fn a_removed_cluster_stays_until_its_routes_have_changed() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("CDS", "CDS a=1 b=1"),
            ("EDS +a +b", "EDS a=1 b=1"),
            ("CDS ack", ""),
            ("EDS ack", ""),
            ("LDS", "LDS l=1"),
            ("LDS ack", ""),
            ("RDS +r", "RDS r=1"),
            ("RDS ack", ""),
            ("set CDS.b EDS.b RDS.r=2", "RDS r=2"),
            ("RDS ack", "CDS -b; EDS -b"),
            ("CDS ack", ""),
            ("EDS ack", ""),
            ("EDS -b", ""),
        ],
    );
    check(
        Variant::Sotw,
        MESH,
        &[
            ("CDS []", "CDS a=1 b=1"),
            ("EDS [a b]", "EDS a=1 b=1"),
            ("CDS ack", ""),
            ("EDS ack", ""),
            ("RDS [r]", "RDS r=1"),
            ("RDS ack", ""),
            // Union first, then the trimmed list.
            ("set CDS.b EDS.b CDS.c=1 RDS.r=2", "CDS a=1 b=1 c=1"),
            ("CDS ack", "RDS r=2"),
            ("RDS ack", "CDS a=1 c=1"),
            ("CDS ack", ""),
        ],
    );
}

#[test]
fn a_removal_waits_while_the_client_runs_an_older_route_because_it_refused_the_newer() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("CDS", "CDS a=1 b=1"),
            ("CDS ack", ""),
            ("RDS +r", "RDS r=1"),
            ("RDS ack", ""),
            ("set CDS.b EDS.b RDS.r=2", "RDS r=2"),
            ("RDS nack bad route", "!RDS r"),
            ("tick 30", ""),
            ("set RDS.r=3", "RDS r=3"),
            ("RDS ack", "CDS -b"),
        ],
    );
}

#[test]
fn a_removal_does_not_wait_for_ever_for_an_ack() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("CDS", "CDS a=1 b=1"),
            ("CDS ack", ""),
            ("LDS", "LDS l=1"),
            ("set CDS.b EDS.b", ""),
            ("tick 19", ""),
            ("tick 1", "CDS -b"),
        ],
    );
}

#[test]
fn changes_fold_while_a_response_is_unanswered() {
    for variant in [Variant::Delta, Variant::Sotw] {
        let first = if variant == Variant::Delta { "EDS +a" } else { "EDS [a]" };
        check(
            variant,
            MESH,
            &[
                (first, "EDS a=1"),
                ("set EDS.a=2", ""),
                ("set EDS.a=3 EDS.b=9", ""),
                ("EDS ack", "EDS a=3"),
                ("set EDS.a=4", ""),
                ("set EDS.a=3", ""),
                ("EDS ack", ""),
            ],
        );
    }
}

#[test]
fn an_unanswered_response_blocks_the_next_only_for_so_long() {
    check(
        Variant::Delta,
        MESH,
        &[("EDS +a", "EDS a=1"), ("set EDS.a=2", ""), ("tick 19", ""), ("tick 1", "EDS a=2")],
    );
}

#[test]
fn a_refused_response_is_not_repeated_until_it_changes() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("CDS", "CDS a=1 b=1"),
            ("CDS nack Error adding/updating cluster(s) b: no", "!CDS b"),
            ("CDS", ""),
            ("set LDS.l=2", ""),
            // What shared the refused response goes along with the next; the culprit does not.
            ("set CDS.c=1", "CDS a=1 c=1"),
            ("CDS ack", ""),
            ("set CDS.b=2", "CDS b=2"),
            ("CDS ack", ""),
        ],
    );
    check(
        Variant::Delta,
        MESH,
        &[
            ("CDS", "CDS a=1 b=1"),
            ("CDS nack no reason given", "!CDS"),
            ("set CDS.c=1", "CDS c=1"),
            ("CDS ack", ""),
            // Nobody knows which was bad: all of that response are tried again when one of them
            // changes.
            ("set CDS.b=2", "CDS a=1 b=2"),
            ("CDS ack", ""),
        ],
    );
    check(
        Variant::Sotw,
        MESH,
        &[
            ("CDS []", "CDS a=1 b=1"),
            ("CDS nack cluster b is bad", "!CDS b"),
            ("CDS nack cluster b is bad", ""),
            ("set CDS.b=2", "CDS a=1 b=2"),
            ("CDS ack", ""),
        ],
    );
}

#[test]
fn a_refusal_stands_until_that_resource_is_accepted_or_gone() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("CDS", "CDS a=1 b=1"),
            ("CDS nack Error adding/updating cluster(s) b: no", "!CDS b"),
            ("refused", "CDS.b"),
            // An answer about other resources of the type says nothing about it.
            ("set CDS.c=1", "CDS a=1 c=1"),
            ("CDS ack", ""),
            ("refused", "CDS.b"),
            // Several stand at once, of one type and of several.
            ("set CDS.d=1 LDS.l=1", "CDS d=1"),
            ("CDS nack d is bad", "!CDS d"),
            ("LDS", "LDS l=1"),
            ("LDS nack no", "!LDS l"),
            ("refused", "CDS.b CDS.d LDS.l"),
            // Gone, though its removal waits for the listeners.
            ("set CDS.d", ""),
            ("refused", "CDS.b LDS.l"),
            ("set CDS.b=2", "CDS b=2"),
            ("refused", "CDS.b LDS.l"),
            ("CDS ack", ""),
            ("refused", "LDS.l"),
        ],
    );
    check(
        Variant::Sotw,
        MESH,
        &[
            ("CDS []", "CDS a=1 b=1"),
            ("CDS nack cluster b is bad", "!CDS b"),
            // A whole list repeats what was refused, so that its answer is about it: the new one is
            // not to blame.
            ("set CDS.c=1", "CDS a=1 b=1 c=1"),
            ("CDS nack cluster b is bad", "!CDS b"),
            ("refused", "CDS.b"),
            ("set CDS.c=2", "CDS a=1 b=1 c=2"),
            ("CDS ack", ""),
            ("refused", ""),
        ],
    );
}

#[test]
fn a_refusal_stands_over_a_broken_connection() {
    let refused = [
        ("CDS", "CDS a=1 b=1"),
        ("CDS nack b is bad", "!CDS b"),
        ("reconnect", ""),
        ("refused", "CDS.b"),
    ];
    let brings = |last: &[(&'static str, &'static str)]| [&refused[..], last].concat();
    check(
        Variant::Delta,
        MESH,
        &brings(&[("CDS ~a=1", "CDS b=1"), ("refused", "CDS.b"), ("CDS ack", ""), ("refused", "")]),
    );
    check(
        Variant::Delta,
        MESH,
        &brings(&[("CDS ~a=1", "CDS b=1"), ("CDS nack b", "!CDS b"), ("refused", "CDS.b")]),
    );
    // It has it meanwhile.
    check(Variant::Delta, MESH, &brings(&[("CDS ~a=1 ~b=1", ""), ("refused", "")]));
    check(Variant::Delta, MESH, &brings(&[("set CDS.b", ""), ("refused", "")]));
}

#[test]
fn a_revert_after_a_refusal_is_sent() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("EDS +a", "EDS a=1"),
            ("EDS ack", ""),
            ("set EDS.a=2", "EDS a=2"),
            ("EDS nack no", "!EDS a"),
            ("set EDS.a=1", "EDS a=1"),
            ("EDS ack", ""),
        ],
    );
}

#[test]
fn a_change_during_the_flight_of_a_refused_response_is_sent() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("EDS +a", "EDS a=1"),
            ("set EDS.a=2", ""),
            ("EDS nack no", "!EDS a; EDS a=2"),
            ("EDS ack", ""),
        ],
    );
}

#[test]
fn a_name_is_remembered_before_it_exists() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("RDS +x", "RDS -x"),
            ("RDS ack", ""),
            ("set RDS.x=1", "RDS x=1"),
            ("RDS ack", ""),
            ("set RDS.x", "RDS -x"),
            ("RDS ack", ""),
            ("set RDS.x=1", "RDS x=1"),
        ],
    );
    check(
        Variant::Sotw,
        MESH,
        &[
            ("RDS [x]", ""),
            ("set RDS.x=1", "RDS x=1"),
            ("RDS ack", ""),
            ("set RDS.x", ""),
            ("set RDS.x=1", "RDS x=1"),
        ],
    );
    check(Variant::Sotw, MESH, &[("CDS [x]", "CDS"), ("CDS ack", ""), ("set CDS.x=1", "CDS x=1")]);
}

#[test]
fn unsubscribing_and_subscribing_again_resends() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("RDS +r", "RDS r=1"),
            ("RDS ack", ""),
            ("RDS -r", ""),
            ("RDS +r", "RDS r=1"),
            ("RDS ack", ""),
            // Asked for again without leaving: answered too.
            ("RDS +r", "RDS r=1"),
        ],
    );
    check(
        Variant::Sotw,
        MESH,
        &[
            ("EDS [a b]", "EDS a=1 b=1"),
            ("EDS ack", ""),
            ("EDS ack [a]", ""),
            ("set EDS.b=2", ""),
            ("EDS ack [a b]", "EDS b=2"),
        ],
    );
}

#[test]
fn an_unsubscribed_name_under_a_wildcard_is_answered() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("CDS +* +a +x", "CDS a=1 b=1 -x"),
            ("CDS ack", ""),
            ("CDS -a", "CDS a=1"),
            ("CDS ack", ""),
            ("CDS -x", "CDS -x"),
            ("CDS ack", ""),
            ("CDS -unknown", ""),
            ("CDS -*", ""),
            ("set CDS.a=2", ""),
            ("CDS", ""),
            ("CDS +*", "CDS a=2 b=1"),
        ],
    );
}

#[test]
fn a_wildcard_after_names_sends_what_is_not_known() {
    check(
        Variant::Delta,
        MESH,
        &[("CDS +a", "CDS a=1"), ("CDS ack", ""), ("CDS +*", "CDS b=1"), ("CDS ack", "")],
    );
    check(
        Variant::Sotw,
        MESH,
        &[
            ("CDS [a]", "CDS a=1"),
            ("CDS ack", ""),
            ("CDS ack [* a]", "CDS a=1 b=1"),
            ("CDS ack [a]", ""),
            ("set CDS.b=2", ""),
            ("CDS ack [a b]", "CDS a=1 b=2"),
            ("CDS ack []", ""),
            ("set CDS.a=3", ""),
        ],
    );
}

#[test]
fn legacy_wildcards_end_with_the_first_name_in_state_of_the_world_only() {
    check(
        Variant::Sotw,
        MESH,
        &[
            ("CDS []", "CDS a=1 b=1"),
            ("CDS ack [a]", "CDS a=1"),
            ("CDS ack", ""),
            ("set CDS.b=2", ""),
        ],
    );
    check(
        Variant::Delta,
        MESH,
        &[
            ("CDS", "CDS a=1 b=1"),
            ("CDS ack +a", "CDS a=1"),
            ("CDS ack", ""),
            ("set CDS.b=2", "CDS b=2"),
        ],
    );
}

#[test]
fn an_empty_first_wildcard_is_answered_and_an_empty_list_of_endpoints_is_not() {
    check(Variant::Delta, "", &[("CDS", "CDS"), ("EDS", ""), ("EDS +a", "EDS -a")]);
    check(
        Variant::Sotw,
        "",
        &[("CDS []", "CDS"), ("CDS ack", ""), ("EDS []", ""), ("set EDS.a=1 CDS.a=1", "CDS a=1")],
    );
}

#[test]
fn the_empty_name_subscribes_to_nothing() {
    check(
        Variant::Sotw,
        MESH,
        &[("RDS [r]", "RDS r=1"), ("RDS ack ['']", ""), ("set RDS.r=2", "")],
    );
}

#[test]
fn a_stale_nonce_changes_nothing_in_state_of_the_world_and_subscribes_in_delta() {
    check(
        Variant::Sotw,
        MESH,
        &[("EDS [a]", "EDS a=1"), ("EDS stale [a b]", ""), ("EDS ack [a b]", "EDS b=1")],
    );
    check(
        Variant::Delta,
        MESH,
        &[("EDS +a", "EDS a=1"), ("EDS stale +b", ""), ("EDS ack", "EDS b=1")],
    );
}

#[test]
fn a_repeated_request_without_nonce_is_answered_in_full() {
    check(
        Variant::Sotw,
        MESH,
        &[
            ("EDS [a b]", "EDS a=1 b=1"),
            ("EDS ack", ""),
            ("EDS [a b]", "EDS a=1 b=1"),
            ("EDS ack", ""),
        ],
    );
}

#[test]
fn known_versions_are_not_sent_again_and_what_vanished_is_removed_once() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("CDS ~a=1 ~b=1", ""),
            ("EDS +a +b ~a=1 ~b=1", ""),
            ("LDS ~l=1", ""),
            ("RDS +r ~r=1", ""),
            ("set EDS.a=2", "EDS a=2"),
        ],
    );
    check(
        Variant::Delta,
        MESH,
        &[
            ("CDS ~a=1 ~b=7 ~gone=1", "CDS b=1"),
            ("CDS ack", ""),
            // Endpoints of a changed cluster go even though the client has them.
            ("EDS +a +b ~a=1 ~b=1", "EDS b=1"),
            ("EDS ack", ""),
            ("LDS ~l=0", "LDS l=1"),
            ("LDS ack", ""),
            // The last thing that may still refer to the vanished cluster is asked for, and
            // unchanged.
            ("RDS +r ~r=1", "CDS -gone"),
            ("CDS ack", ""),
        ],
    );
    check(
        Variant::Delta,
        MESH,
        &[("RDS +r +x ~r=2026-11-21T00:00:00Z/7 ~x=1 ~other=1", "RDS r=1 -x"), ("RDS ack", "")],
    );
}

#[test]
fn endpoints_may_come_first_on_a_resumed_stream() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("EDS +a +b ~a=1 ~b=1", ""),
            ("LDS ~l=1", ""),
            ("RDS +r ~r=1", ""),
            ("CDS ~a=2 ~b=1", "CDS a=1; EDS a=1"),
        ],
    );
}

#[test]
fn removals_on_a_resumed_stream_do_not_wait_for_a_client_without_routes() {
    check(
        Variant::Delta,
        "CDS.a=1",
        &[("CDS ~a=1 ~gone=1", ""), ("tick 4", ""), ("tick 1", "CDS -gone")],
    );
}

#[test]
fn a_secret_goes_out_when_it_exists_and_to_those_who_named_it() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("SDS +kubernetes://web", ""),
            ("secret other=1", ""),
            ("secret kubernetes://web=1", "SDS kubernetes://web=1"),
            ("SDS ack", ""),
            ("secret kubernetes://web=1", ""),
            ("secret kubernetes://web=2", "SDS kubernetes://web=2"),
            ("SDS ack", ""),
            ("SDS +*", ""),
        ],
    );
    check(
        Variant::Sotw,
        MESH,
        &[("SDS [s]", ""), ("secret s=1", "SDS s=1"), ("SDS ack", ""), ("secret s=", "")],
    );
}

#[test]
fn state_of_the_world_versions_follow_the_content() {
    let mut stage = Stage::new(Variant::Sotw, MESH);
    let mut version = |line: &str| {
        stage.step(line);
        stage.versions[ResourceType::Cluster.index()].clone()
    };
    let first = version("CDS []");
    version("CDS ack");
    let second = version("set CDS.a=2");
    assert_ne!(first, second);
    version("CDS ack");
    assert_eq!(version("set CDS.a=1"), first);
    version("CDS ack");
    assert_eq!(version("CDS []"), first, "asked again, unchanged");
}

#[test]
fn a_view_further_behind_than_its_log_is_compared_whole() {
    let mut stage = Stage::new(Variant::Delta, MESH);
    stage.step("CDS");
    stage.step("CDS ack");
    for version in 2..200 {
        edit(&mut stage.world, &format!("CDS.a={version}"));
    }
    edit(&mut stage.world, "CDS.b CDS.c=1");
    assert_eq!(stage.step("set LDS.other=1"), "CDS a=199 c=1 -b");
}

#[test]
fn other_views_replace_what_the_stream_sees() {
    let mut stage = Stage::new(Variant::Delta, MESH);
    stage.step("CDS");
    stage.step("CDS ack");
    let mut other = Draft::new("other");
    edit(&mut other, "CDS.a=1 CDS.d=1");
    stage.session.on_views(vec![other.publish()]);
    assert_eq!(stage.step("tick 1"), "CDS d=1 -b");
    stage.step("CDS ack");
    stage.session.on_views(vec![other.publish(), stage.world.publish()]);
    assert_eq!(stage.step("tick 1"), "CDS b=1", "the first view's a counts, and both are equal");
}

#[test]
fn unknown_types_keep_the_stream_open_and_are_answered_once() {
    let mut session = Session::new(1, Variant::Delta, vec![]);
    let request = |url: &str, names: &[&str], nonce: &str| DeltaDiscoveryRequest {
        type_url: url.to_owned(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        response_nonce: nonce.to_owned(),
        ..Default::default()
    };
    session.on_delta(request("type/x", &["n"], "")).expect("tolerated");
    let answer = session.next_response().expect("an answer");
    assert_eq!((answer.kind, answer.removed), (Err(Arc::from("type/x")), vec![Arc::from("n")]));
    session.on_delta(request("type/x", &[], &answer.nonce)).expect("tolerated");
    assert_eq!(session.next_response(), None);
    assert!(session.on_delta(request("", &[], "")).is_err());
}

/// A listener that is drained keeps asking for its configurations.
#[test]
fn who_has_the_configuration_of_an_extension_keeps_it() {
    check(
        Variant::Delta,
        "LDS.l=1 ECDS.e=1",
        &[
            ("LDS", "LDS l=1"),
            ("LDS ack", ""),
            // What is not there is awaited.
            ("ECDS +e +f", "ECDS e=1"),
            ("ECDS ack", ""),
            ("set ECDS.f=1", "ECDS f=1"),
            ("ECDS ack", ""),
            ("set ECDS.e=2", "ECDS e=2"),
            ("ECDS ack", ""),
            ("set ECDS.e ECDS.f", ""),
            ("set ECDS.e=2", "ECDS e=2"),
            ("ECDS ack", ""),
        ],
    );
    check(
        Variant::Sotw,
        "ECDS.e=1",
        &[
            ("ECDS [e f]", "ECDS e=1"),
            ("ECDS ack", ""),
            ("set ECDS.e", ""),
            ("set ECDS.e=2 ECDS.f=1", "ECDS e=2 f=1"),
            ("ECDS ack", ""),
        ],
    );
}

#[test]
fn a_stream_cannot_name_without_end() {
    let mut session = Session::new(1, Variant::Delta, vec![]);
    let many = |from: u32| DeltaDiscoveryRequest {
        type_url: ResourceType::Route.type_url().to_owned(),
        resource_names_subscribe: (from..from + 60_000).map(|n| n.to_string()).collect(),
        ..Default::default()
    };
    assert!(session.on_delta(many(0)).is_ok());
    assert!(session.on_delta(many(60_000)).is_err());
    assert!((0..40).any(|n| {
        session
            .on_delta(DeltaDiscoveryRequest { type_url: format!("x{n}"), ..Default::default() })
            .is_err()
    }));
}

#[test]
fn a_refused_cluster_does_not_hold_up_routes() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("CDS", "CDS a=1 b=1"),
            ("EDS +a +b", "EDS a=1 b=1"),
            ("CDS ack", ""),
            ("EDS ack", ""),
            ("RDS +r", "RDS r=1"),
            ("RDS ack", ""),
            ("set CDS.c=1 EDS.c=1 RDS.r=2", "CDS c=1"),
            ("CDS nack no", "!CDS c; RDS r=2"),
        ],
    );
}

#[test]
fn an_up_to_date_stream_remembers_names_and_nothing_else() {
    let mut stage = Stage::new(Variant::Delta, "");
    let mesh: Vec<String> = (0..1000).map(|n| format!("CDS.c{n}=1 EDS.c{n}=1")).collect();
    stage.step(&format!("set {}", mesh.join(" ")));
    stage.step("CDS");
    let names: Vec<String> = (0..1000).map(|n| format!("+c{n}")).collect();
    stage.step(&format!("EDS {}", names.join(" ")));
    stage.step("CDS ack");
    stage.step("EDS ack");
    assert!(stage.session.is_settled() && !stage.session.wants_ticks());
    let view = stage.world.publish();
    let shared = |name: &Arc<str>| {
        Arc::ptr_eq(name, &view.get(ResourceType::Endpoint, name).expect("it exists").name)
    };
    let names = stage.session.tracks[ResourceType::Endpoint.index()].subscription().list();
    assert!(names.len() == 1000 && names.iter().all(shared), "names are those of the view");
}

#[test]
fn listeners_wait_for_new_clusters_and_nobody_waits_for_changed_ones() {
    let start = [
        ("CDS", "CDS a=1 b=1"),
        ("EDS +a +b", "EDS a=1 b=1"),
        ("CDS ack", ""),
        ("EDS ack", ""),
        ("LDS", "LDS l=1"),
        ("LDS ack", ""),
        ("RDS +r", "RDS r=1"),
        ("RDS ack", ""),
    ];
    let with = |more: &[(&'static str, &'static str)]| {
        check(Variant::Delta, MESH, &[&start[..], more].concat());
    };
    with(&[("set CDS.c=1 LDS.l=2", "CDS c=1"), ("CDS ack", "LDS l=2")]);
    with(&[("set CDS.c=1 RDS.r=2", "CDS c=1"), ("tick 4", ""), ("tick 1", "RDS r=2")]);
    // The client has left b's endpoints, so it does not need them.
    with(&[("EDS -b", ""), ("set CDS.b=2 RDS.r=2", "CDS b=2; RDS r=2")]);
    // A cluster that goes before the client asked for its endpoints holds up nothing.
    with(&[
        ("set CDS.c=1 EDS.c=1 RDS.r=2", "CDS c=1"),
        ("CDS ack", ""),
        ("set CDS.c EDS.c", "RDS r=2"),
        ("RDS ack", "CDS -c"),
    ]);
}

#[test]
fn removals_keep_the_order_of_their_parents() {
    let start = [
        ("CDS", "CDS a=1 b=1"),
        ("EDS +a +b", "EDS a=1 b=1"),
        ("CDS ack", ""),
        ("EDS ack", ""),
        ("LDS", "LDS l=1"),
        ("LDS ack", ""),
        ("RDS +r", "RDS r=1"),
        ("RDS ack", ""),
    ];
    let with = |more: &[(&'static str, &'static str)]| {
        check(Variant::Delta, MESH, &[&start[..], more].concat());
    };
    with(&[
        ("set CDS.a=2", "CDS a=2; EDS a=1"),
        ("EDS ack", ""),
        ("set CDS.b EDS.b", ""),
        ("CDS ack", "CDS -b; EDS -b"),
    ]);
    with(&[("set LDS.l=2 RDS.r", "LDS l=2"), ("LDS ack", "RDS -r")]);
}

#[test]
fn listeners_that_change_without_end_do_not_keep_removed_clusters() {
    let mut stage = Stage::new(Variant::Delta, MESH);
    for step in ["CDS", "CDS ack", "LDS", "LDS ack", "set LDS.l=2", "set CDS.b"] {
        stage.step(step);
    }
    let removed_after = (3..60).find(|n| {
        // The next change is there before the one in flight is acknowledged.
        let said = [format!("set LDS.l={n}"), "LDS ack".to_owned(), "tick 1".to_owned()]
            .map(|line| stage.step(&line));
        said.iter().any(|s| s.contains("CDS -b"))
    });
    assert_eq!(removed_after, Some(22));
}

#[test]
fn what_shared_a_refused_response_is_sent_when_it_changes_or_another_goes() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("CDS", "CDS a=1 b=1"),
            ("CDS nack b is bad", "!CDS b"),
            ("set CDS.a=2", "CDS a=2"),
            ("CDS ack", ""),
        ],
    );
    check(
        Variant::Delta,
        MESH,
        &[
            ("CDS", "CDS a=1 b=1"),
            ("CDS ack", ""),
            ("set CDS.a=2 CDS.b", "CDS a=2 -b"),
            ("CDS nack a is bad", "!CDS a"),
            ("set CDS.a=3", "CDS a=3 -b"),
        ],
    );
}

#[test]
fn endpoints_that_were_refused_go_again_with_a_changed_cluster() {
    check(
        Variant::Delta,
        MESH,
        &[
            ("CDS", "CDS a=1 b=1"),
            ("CDS ack", ""),
            ("EDS +a", "EDS a=1"),
            ("EDS nack no", "!EDS a"),
            // The cluster would warm for ever; a refusal ends that too.
            ("set CDS.a=2", "CDS a=2; EDS a=1"),
        ],
    );
}

#[test]
fn a_listener_that_was_refused_for_a_cluster_goes_again_once_the_cluster_is_there() {
    for (variant, ask) in [(Variant::Delta, "LDS"), (Variant::Sotw, "LDS []")] {
        let mut stage = Stage::new(variant, MESH);
        let start = if variant == Variant::Delta { "CDS" } else { "CDS []" };
        for step in [start, "CDS ack", ask, "LDS ack"] {
            stage.step(step);
        }
        assert_eq!(
            stage.step("set CDS.c=1 LDS.l=2"),
            if variant == Variant::Delta { "CDS c=1" } else { "CDS a=1 b=1 c=1" }
        );
        stage.step("tick 4");
        assert_eq!(stage.step("tick 1"), "LDS l=2", "it has waited long enough");
        assert_eq!(stage.step("LDS nack no cluster c"), "!LDS l");
        assert_eq!(stage.step("CDS ack"), "LDS l=2");
        assert_eq!(stage.step("LDS ack"), "");
    }
}

#[test]
fn names_left_while_a_response_is_in_flight_are_forgotten() {
    check(
        Variant::Delta,
        MESH,
        &[("CDS", "CDS a=1 b=1"), ("set CDS.a=2", ""), ("CDS -*", ""), ("CDS ack", "")],
    );
}

#[test]
fn an_old_nonce_cannot_narrow_a_subscription_and_a_foreign_one_answers_nothing() {
    check(
        Variant::Sotw,
        MESH,
        &[
            ("EDS [a]", "EDS a=1"),
            ("set EDS.a=2", ""),
            ("EDS ack", "EDS a=2"),
            ("EDS stale []", ""),
            ("EDS ack [a]", ""),
            ("set EDS.a=3", "EDS a=3"),
        ],
    );
    let mut stage = Stage::new(Variant::Delta, MESH);
    stage.step("EDS +a");
    stage.nonces[ResourceType::Endpoint.index()] = vec!["8-1".to_owned()];
    stage.step("EDS ack");
    assert_eq!(stage.step("set EDS.a=2"), "", "the response in flight is still unanswered");
}

#[test]
fn a_held_cluster_stays_in_the_list_of_a_client_that_asks_anew() {
    let mut stage = Stage::new(Variant::Sotw, MESH);
    for step in ["CDS []", "CDS ack", "RDS [r]", "RDS ack", "set CDS.b RDS.r=2"] {
        stage.step(step);
    }
    assert_eq!(stage.step("CDS []"), "CDS a=1 b=1");
    let union = stage.versions[ResourceType::Cluster.index()].clone();
    stage.step("CDS ack");
    assert_eq!(stage.step("RDS ack"), "CDS a=1");
    assert_ne!(stage.versions[ResourceType::Cluster.index()], union);
}

#[test]
fn of_two_views_with_one_name_the_first_counts() {
    let (mut first, mut second) = (Draft::new("first"), Draft::new("second"));
    edit(&mut first, "CDS.a=1");
    edit(&mut second, "CDS.a=2 CDS.b=2");
    let mut stage = Stage::new(Variant::Delta, "");
    stage.session = Session::new(7, Variant::Delta, vec![first.publish(), second.publish()]);
    assert_eq!(stage.step("CDS"), "CDS a=1 b=2");
    stage.step("CDS ack");
    edit(&mut first, "CDS.a");
    stage.session.on_view(first.publish());
    assert_eq!(stage.step("tick 1"), "CDS a=2", "the second's shows where the first has none");
}
