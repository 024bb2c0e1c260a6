//! Findings that their edits take away.
//!
//! Knows texts and what is found in them, and no files. An edit counts only for what it does: the
//! texts are looked at again with it, and one that does not take its finding away, or brings an
//! error, is not made.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    diagnostic::{Code, Diagnostic, TextEdit},
    yaml,
};

/// Texts by the names of their files.
pub type Texts = BTreeMap<Arc<str>, String>;

/// Most times that texts are gone through. What one edit uncovers the next time mends.
const MOST_ROUNDS: usize = 10;

/// What became of texts.
#[derive(Debug)]
pub struct Fixed {
    /// The texts, changed where findings were taken away and nowhere else.
    pub texts: Texts,
    /// The findings that are gone, in the order in which that was done.
    pub fixed: Vec<Diagnostic>,
    /// Those that have an edit that was not made.
    pub not_fixed: Vec<NotFixed>,
    /// What is still found, the former among it.
    pub findings: Vec<Diagnostic>,
}

/// A finding whose edit was not made.
#[derive(Debug)]
pub struct NotFixed {
    /// The finding.
    pub finding: Diagnostic,
    /// Why.
    pub reason: String,
}

/// Makes the edits that findings carry. `analyze` says what is found in texts; it must say the same
/// of the same texts.
///
/// Done again with the texts that come of it, nothing more is changed.
pub fn fix(texts: Texts, analyze: impl Fn(&Texts) -> Vec<Diagnostic>) -> Fixed {
    let findings = analyze(&texts);
    let mut done = Fixed { texts, fixed: Vec::new(), not_fixed: Vec::new(), findings };
    for _ in 0..MOST_ROUNDS {
        let Fixed { texts, fixed, findings, .. } = done;
        let mut round = Round {
            base: &texts,
            before: &findings,
            analyze: &analyze,
            made: Vec::new(),
            after: None,
            not_fixed: Vec::new(),
        };
        round.settle(&candidates(&texts, &findings));
        let Round { made, after, not_fixed, .. } = round;
        let Some((texts, after)) = after else {
            return Fixed { texts, fixed, not_fixed, findings };
        };
        let fixed = fixed.into_iter().chain(made.into_iter().cloned()).collect();
        done = Fixed { texts, fixed, not_fixed, findings: after };
    }
    done
}

/// The findings that have an edit in one of the texts, each edit once.
fn candidates<'a>(texts: &Texts, findings: &'a [Diagnostic]) -> Vec<&'a Diagnostic> {
    let mut known = BTreeSet::new();
    findings
        .iter()
        .filter(|finding| file(finding).is_some_and(|file| texts.contains_key(file)))
        .filter(|finding| finding.edit.is_some() && known.insert((file(finding), &finding.edit)))
        .collect()
}

fn file(finding: &Diagnostic) -> Option<&Arc<str>> {
    finding.position.as_ref().map(|position| &position.file)
}

/// Edits of the same texts.
struct Round<'a, F> {
    base: &'a Texts,
    before: &'a [Diagnostic],
    analyze: &'a F,
    /// The findings whose edits are made.
    made: Vec<&'a Diagnostic>,
    /// The texts with these edits, and what is found in them.
    after: Option<(Texts, Vec<Diagnostic>)>,
    not_fixed: Vec<NotFixed>,
}

impl<'a, F: Fn(&Texts) -> Vec<Diagnostic>> Round<'a, F> {
    /// Makes as many of the edits as do no harm; each half on its own where some do.
    fn settle(&mut self, group: &[&'a Diagnostic]) {
        if group.is_empty() {
            return;
        }
        match self.attempt(group) {
            Ok(after) => {
                self.made.extend(group);
                self.after = Some(after);
            }
            Err(reason) => match group {
                [finding] => {
                    self.not_fixed.push(NotFixed { finding: (*finding).clone(), reason });
                }
                _ => {
                    let (first, second) = group.split_at(group.len() / 2);
                    self.settle(first);
                    self.settle(second);
                }
            },
        }
    }

    /// The texts with these edits beside those that are made; `Err`: why they are not to be made.
    fn attempt(&self, group: &[&'a Diagnostic]) -> Result<(Texts, Vec<Diagnostic>), String> {
        let all: Vec<&Diagnostic> = self.made.iter().chain(group).copied().collect();
        let mut edits: BTreeMap<&Arc<str>, Vec<TextEdit>> = BTreeMap::new();
        for finding in &all {
            if let (Some(file), Some(edit)) = (file(finding), &finding.edit) {
                edits.entry(file).or_default().push(edit.clone());
            }
        }
        let mut texts = self.base.clone();
        for (file, edits) in &edits {
            let text = texts.get_mut(*file).ok_or("its file is not there")?;
            *text = yaml::apply(text, edits).ok_or("it touches another fix")?;
        }
        let after = (self.analyze)(&texts);
        self.judge(&all, &edits, &after)?;
        Ok((texts, after))
    }

    fn judge(
        &self,
        made: &[&Diagnostic],
        edits: &BTreeMap<&Arc<str>, Vec<TextEdit>>,
        after: &[Diagnostic],
    ) -> Result<(), String> {
        let now = |finding: &Diagnostic| {
            let position = finding.position.as_ref()?;
            let edits = edits.get(&position.file).map(Vec::as_slice).unwrap_or_default();
            Some((position.file.clone(), line_before(position.line, edits)))
        };
        let then = |finding: &Diagnostic| {
            let position = finding.position.as_ref()?;
            Some((position.file.clone(), position.line))
        };
        let mut said = Tally::default();
        let mut errors = Tally::default();
        for finding in after {
            said.add((finding.code, now(finding), Some(finding.message.clone())), finding);
            if finding.severity.fails_analysis() {
                errors.add((finding.code, now(finding), None), finding);
            }
        }
        for finding in self.before {
            said.take((finding.code, then(finding), Some(finding.message.clone())));
            if finding.severity.fails_analysis() {
                errors.take((finding.code, then(finding), None));
            }
        }
        // What was mended is to be gone, with all that says the same of the same line.
        for finding in made {
            said.owe((finding.code, then(finding), Some(finding.message.clone())), finding);
            if finding.severity.fails_analysis() {
                errors.owe((finding.code, then(finding), None), finding);
            }
        }
        let mended = made.iter().map(|f| (f.code, then(f), Some(f.message.clone())));
        for key in mended {
            if let Some(finding) = said.too_many(&key) {
                return Err(format!("it would still be found: {finding}"));
            }
        }
        match errors.any_too_many() {
            Some(finding) => Err(format!("it would bring: {finding}")),
            None => Ok(()),
        }
    }
}

/// What a finding is known by across edits: its code, its line as it was before, and what it says.
type Key = (Code, Option<(Arc<str>, u32)>, Option<String>);

/// How many findings there are of each key, over those that there may be.
#[derive(Default)]
struct Tally<'a>(BTreeMap<Key, (isize, Option<&'a Diagnostic>)>);

impl<'a> Tally<'a> {
    fn add(&mut self, key: Key, finding: &'a Diagnostic) {
        let (count, example) = self.0.entry(key).or_default();
        *count += 1;
        *example = Some(finding);
    }

    fn take(&mut self, key: Key) {
        self.0.entry(key).or_default().0 -= 1;
    }

    /// One fewer may be there.
    fn owe(&mut self, key: Key, finding: &'a Diagnostic) {
        let (count, example) = self.0.entry(key).or_default();
        *count += 1;
        example.get_or_insert(finding);
    }

    fn too_many(&self, key: &Key) -> Option<&'a Diagnostic> {
        self.0.get(key).filter(|(count, _)| *count > 0).and_then(|(_, example)| *example)
    }

    fn any_too_many(&self) -> Option<&'a Diagnostic> {
        self.0.values().filter(|(count, _)| *count > 0).find_map(|(_, example)| *example)
    }
}

/// The line of a text that became this one by edits, some of which put lines in or took lines out.
/// What stands in the place of several lines counts as of the first of them.
fn line_before(line: u32, edits: &[TextEdit]) -> u32 {
    let mut edits: Vec<&TextEdit> = edits.iter().collect();
    edits.sort_unstable();
    let now = i64::from(line);
    let mut shift = 0;
    for edit in edits {
        let put = i64::try_from(edit.text.matches('\n').count()).unwrap_or(i64::MAX);
        let gone = i64::from(edit.end_line) - i64::from(edit.line);
        let whole_lines = put == 0 && gone > 0 && (edit.col, edit.end_col) == (1, 1);
        let begins = i64::from(edit.line) + shift;
        if now < begins || (now == begins && !whole_lines) {
            break;
        }
        if now <= begins.saturating_add(put) && !whole_lines {
            return edit.line;
        }
        shift += put - gone;
    }
    u32::try_from(now - shift).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{analyze::analyze_input, dialect::parse_files, ir::MeshDefaults};

    fn found(texts: &Texts) -> Vec<Diagnostic> {
        let files = texts.iter().map(|(name, text)| (&**name, text.as_bytes()));
        analyze_input(&parse_files(files), &MeshDefaults::default())
    }

    fn fixed(text: &str) -> Fixed {
        let texts = Texts::from([("a.yaml".into(), text.to_owned())]);
        fix(texts, found)
    }

    /// What comes of a text, the codes of what was mended, and why else is not.
    #[track_caller]
    fn check(text: &str, expected: &str, codes: &[&str], reasons: &[&str]) {
        let done = fixed(text);
        assert_eq!(done.texts["a.yaml"], expected, "{done:#?}");
        let said: Vec<&str> = done.fixed.iter().map(|finding| finding.code.as_str()).collect();
        assert_eq!(said, codes, "{done:#?}");
        assert_eq!(done.not_fixed.len(), reasons.len(), "{done:#?}");
        for (not_fixed, reason) in done.not_fixed.iter().zip(reasons) {
            assert!(not_fixed.reason.contains(reason), "{}", not_fixed.reason);
        }
        assert_eq!(done.findings, found(&done.texts), "what is told is what is there");
        let again = fix(done.texts.clone(), found);
        assert_eq!((again.texts, again.fixed), (done.texts, Vec::new()), "not done twice");
    }

    const SHOP: &str = "\
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {selector: {app: reviews}, ports: [{port: 80, name: http}]}
---
";

    #[test]
    fn names_and_values_are_mended_and_comments_stay() {
        check(
            &format!(
                "{SHOP}# the canary
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: reviews
  namespace: shop
spec:
  host: revews   # of the shop
  trafficPolicy:
    loadBalancer: {{simple: ROUND_ROBN}}
    connectionPool:
      tcp:
        maxConnections: \"100\"
        conectTimeout: 5
  subsets:
  - name: canary
    labels: {{version: 1}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews, namespace: shop}}
spec:
  hosts: reviews
  http:
  - match: [{{uri: {{prefix: /a}}}}]
    route: [{{destination: {{host: 'reviws'}}}}]
  - route: [{{destination: {{host: reviews, subset: canry}}}}]
"
            ),
            &format!(
                "{SHOP}# the canary
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: reviews
  namespace: shop
spec:
  host: reviews   # of the shop
  trafficPolicy:
    loadBalancer: {{simple: ROUND_ROBIN}}
    connectionPool:
      tcp:
        maxConnections: 100
        connectTimeout: 5s
  subsets:
  - name: canary
    labels: {{version: \"1\"}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews, namespace: shop}}
spec:
  hosts: [reviews]
  http:
  - match: [{{uri: {{prefix: /a}}}}]
    route: [{{destination: {{host: 'reviews'}}}}]
  - route: [{{destination: {{host: reviews, subset: canary}}}}]
"
            ),
            &[
                "FM0201", "FM0103", "FM0102", "FM0101", "FM0102", "FM0102", "FM0102", "FM0201",
                "FM0201",
            ],
            &[],
        );
    }

    #[test]
    fn what_an_object_is_is_mended() {
        const REST: &str = "metadata: {name: a, namespace: b}\nspec: {egress: [{hosts: [./*]}]}\n";
        check(
            &format!("# first\nkind: Sidecar\n{REST}"),
            &format!("# first\napiVersion: networking.istio.io/v1\nkind: Sidecar\n{REST}"),
            &["FM0007"],
            &[],
        );
        check(
            &format!("apiVersion: networking.istio.io/v2\nkind: Sidecar\n{REST}"),
            &format!("apiVersion: networking.istio.io/v1\nkind: Sidecar\n{REST}"),
            &["FM0008"],
            &[],
        );
    }

    #[test]
    fn what_could_be_several_things_is_left() {
        let text = format!(
            "{SHOP}apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: a, namespace: shop}}
spec:
  host: reviews
  subsets: [{{name: v1, labels: {{v: a}}}}, {{name: v2, labels: {{v: b}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: a, namespace: shop}}
spec: {{hosts: [reviews], http: [{{route: [{{destination: {{host: reviews, subset: v3}}}}]}}]}}
"
        );
        check(&text, &text, &[], &[]);
    }

    #[test]
    fn a_fix_that_brings_an_error_is_not_made_and_others_are() {
        check(
            "apiVersion: networking.istio.io/v1
kind: Sidecra
metadata: {name: a, namespace: b}
spec: {egress: [{hosts: [not a host]}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecra
metadata: {name: c, namespace: b}
spec: {egress: [{hosts: [./*]}]}
",
            "apiVersion: networking.istio.io/v1
kind: Sidecra
metadata: {name: a, namespace: b}
spec: {egress: [{hosts: [not a host]}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: c, namespace: b}
spec: {egress: [{hosts: [./*]}]}
",
            &["FM0008"],
            &["it would bring"],
        );
    }

    const EXAMPLES: [&str; 3] = [
        include_str!("../../../integration/corpus/seeds/s4-02-destinationrule.yaml"),
        include_str!("../../../integration/corpus/seeds/s4-06-authorizationpolicy.yaml"),
        include_str!("../../../integration/corpus/seeds/s1-02-virtual-service-config.yaml"),
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Two letters of an example change places.
        #[test]
        fn what_is_fixed_is_gone_and_every_other_byte_stays(
            example in 0..EXAMPLES.len(), line in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()
        ) {
            let lines: Vec<&str> = EXAMPLES[example].split_inclusive('\n').collect();
            let line = line.index(lines.len());
            let mut letters: Vec<char> = lines[line].chars().collect();
            let at = at.index(letters.len());
            if at + 1 < letters.len() && letters[at..at + 2].iter().all(|c| c.is_alphabetic()) {
                letters.swap(at, at + 1);
            }
            let slipped: String = letters.into_iter().collect();
            let text = [&lines[..line], &[slipped.as_str()][..], &lines[line + 1..]].concat().concat();
            let errors = |findings: &[Diagnostic]| {
                findings.iter().filter(|finding| finding.severity.fails_analysis()).count()
            };
            let before = found(&Texts::from([("a.yaml".into(), text.clone())]));
            let done = fixed(&text);
            let mended = errors(&done.fixed);
            prop_assert!(errors(&done.findings) + mended <= errors(&before), "{:#?}", done);
            let of_fixes: Vec<usize> = done
                .fixed
                .iter()
                .filter_map(|finding| usize::try_from(finding.edit.as_ref()?.line).ok())
                .collect();
            let new = &done.texts["a.yaml"];
            if new.lines().count() == text.lines().count() {
                for (number, (old, new)) in (1..).zip(text.lines().zip(new.lines())) {
                    prop_assert!(old == new || of_fixes.contains(&number), "{}: {} {}", number, old, new);
                }
            }
            prop_assert_eq!(fixed(new).fixed, Vec::new());
        }
    }

    #[test]
    fn lines_are_counted_as_they_were() {
        let insert =
            |line| TextEdit { line, col: 1, end_line: line, end_col: 1, text: "a\n".into() };
        let edits = [insert(3), insert(5)];
        let before: Vec<u32> = (1..=9).map(|line| line_before(line, &edits)).collect();
        assert_eq!(before, [1, 2, 3, 3, 4, 5, 5, 6, 7]);
        let gone = |line, col, end_line, end_col| TextEdit {
            line,
            col,
            end_line,
            end_col,
            text: String::new(),
        };
        // Lines 2 and 3 go, and what follows 5 up to somewhere in 7.
        let edits = [gone(2, 1, 4, 1), gone(5, 4, 7, 3)];
        let before: Vec<u32> = (1..=5).map(|line| line_before(line, &edits)).collect();
        assert_eq!(before, [1, 4, 5, 8, 9]);
    }
}
