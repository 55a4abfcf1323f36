//! The text of a transcript, taken apart.

/// One command and what must come of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The line its `$` stands on, counted from 1.
    pub line: usize,
    /// The prose above it, since the step before.
    pub prose: String,
    /// What the shell is given; several lines where `>` lines follow.
    pub command: String,
    /// The expected output, a pattern a line.
    pub expect: Vec<String>,
    /// The expected exit status.
    pub status: i32,
}

/// The steps of a transcript, in order.
/// # Errors
/// The line of an indented text that belongs to no `$` line.
pub fn parse(text: &str) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut prose, mut indent) = (String::new(), None);
    for (n, line) in text.lines().enumerate() {
        let blanks = line.len() - line.trim_start_matches(' ').len();
        let body = &line[blanks..];
        match (blanks >= 2 && !body.is_empty(), body.strip_prefix("$ ")) {
            (false, _) => {
                indent = None;
                prose.push_str(body);
                prose.push('\n');
            }
            (true, Some(command)) if indent.is_none_or(|i| blanks == i) => {
                indent = Some(blanks);
                let prose = std::mem::take(&mut prose).trim().to_owned();
                steps.push(Step { line: n + 1, prose, command: command.to_owned(), ..Step::default() });
            }
            (true, _) => {
                let (Some(indent), Some(step)) = (indent.filter(|&i| blanks >= i), steps.last_mut()) else {
                    return Err(format!("line {}: indented, but no \"$ \" line stands above it", n + 1));
                };
                match line[indent..].strip_prefix("> ") {
                    Some(more) if step.expect.is_empty() => step.command.push_str(&format!("\n{more}")),
                    _ => step.expect.push(line[indent..].to_owned()),
                }
            }
        }
    }
    steps.iter_mut().for_each(take_status);
    Ok(steps)
}

fn take_status(step: &mut Step) {
    let status = step.expect.last().and_then(|l| l.strip_prefix('[')?.strip_suffix(']')?.parse().ok());
    if let Some(status) = status {
        step.status = status;
        step.expect.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps() {
        let text = "Prose.\n  $ echo a\n  a\n  $ for i in 1; do\n  > false; done\n  [1]\n\nMore\nof it.\n    $ cat x\n      deep\n    [..]\n";
        let steps = parse(text).unwrap();
        let short: Vec<_> = steps
            .iter()
            .map(|s| (s.line, s.prose.as_str(), s.command.as_str(), s.expect.join("|"), s.status))
            .collect();
        assert_eq!(
            short,
            [
                (2, "Prose.", "echo a", "a".into(), 0),
                (4, "", "for i in 1; do\nfalse; done", String::new(), 1),
                (10, "More\nof it.", "cat x", "  deep|[..]".into(), 0),
            ]
        );
        assert_eq!(parse("  lonely\n").unwrap_err(), "line 1: indented, but no \"$ \" line stands above it");
    }
}
