//! Two accidents of copying that a YAML parser would answer with riddles.

use super::documents::is_content;

/// Keys that stand at the top of objects: one of them after a key without value is no sign of lost
/// indentation.
const TOP_LEVEL: &[&str] =
    &["apiVersion", "kind", "metadata", "spec", "status", "data", "stringData", "type"];

/// Words that begin a command line.
const COMMANDS: &[&str] = &[
    "kubectl",
    "istioctl",
    "helm",
    "linkerd",
    "curl",
    "wget",
    "cat",
    "export",
    "sudo",
    "docker",
    "kind",
    "minikube",
    "echo",
    "cilium",
    "ferromesh",
    "for",
    "done",
    "EOF",
    "$",
];

/// Whether all leading blanks of a text are gone: no line is indented, yet `spec:` or `metadata:`
/// has content below it. Gives the line of the first such key, counted from 1.
pub fn indentation_lost(text: &str) -> Option<u32> {
    let content = || text.lines().enumerate().filter(|(_, line)| is_content(line));
    if content().any(|(_, line)| line.starts_with([' ', '\t'])) {
        return None;
    }
    let mut previous: Option<(usize, &str)> = None;
    for (number, line) in content() {
        if let Some((key_line, key)) = previous
            && matches!(key, "spec:" | "metadata:")
            && number > key_line
            && !line.starts_with('-')
            && !TOP_LEVEL.contains(&line.split(':').next().unwrap_or_default())
            && line.contains(':')
        {
            return u32::try_from(key_line + 1).ok();
        }
        previous = Some((number, without_comment(line)));
    }
    None
}

fn without_comment(line: &str) -> &str {
    line.split(" #").next().unwrap_or_default().trim_end()
}

/// The first line, counted from 1, at which a command line stands where a key should.
pub fn shell_command(text: &str) -> Option<u32> {
    let found = text.lines().position(|line| {
        let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        line.starts_with("#!/")
            || (word == "EOF" && rest.is_empty())
            || (COMMANDS.contains(&word)
                && !rest.trim().is_empty()
                && !rest.trim_start().starts_with(':'))
    });
    found.and_then(|index| u32::try_from(index + 1).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_indentation_is_told_from_flat_files() {
        let table = [
            ("apiVersion: v1\nkind: Namespace\nmetadata:\nname: x\n", Some(3)),
            ("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: x\n", None),
            ("apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n", None),
            ("spec:\nvalues:\nglobal:\nmeshID: mesh1\n", Some(1)),
            ("metadata: {name: x}\nspec:\nkind: Namespace\n", None),
            ("spec:\n- a\n", None),
            ("metadata: # who\nname: x\n", Some(1)),
        ];
        for (text, expected) in table {
            assert_eq!(indentation_lost(text), expected, "{text:?}");
        }
    }

    #[test]
    fn commands_are_told_from_keys() {
        let table = [
            ("a: 1\nkubectl apply -f x.yaml\n", Some(2)),
            ("istioctl x create-remote-secret --name=c | \\\n  kubectl apply -f -\n", Some(1)),
            ("$ helm install x\n", Some(1)),
            ("kind: kubectl\nhelm: x\nkubectl : y\n", None),
            ("data:\n  run: |\n    kubectl get pods\n", None),
        ];
        for (text, expected) in table {
            assert_eq!(shell_command(text), expected, "{text:?}");
        }
    }
}
