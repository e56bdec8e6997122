//! Where Kiln differs from MLX on purpose: the table in `golden/mlx/differences.md`.

use crate::Wrong;
use crate::file::{Case, directory};

/// A row: cases of these functions with operands of these dtypes differ in this way.
#[derive(Debug)]
struct Row {
    functions: Vec<String>,
    operands: String,
    kiln: String,
    used: bool,
}

pub(crate) struct Differences(Vec<Row>);

impl Differences {
    #[allow(clippy::expect_used, reason = "without the table there is no test")]
    pub(crate) fn read() -> Differences {
        let text = std::fs::read_to_string(directory().join("differences.md")).expect("the table");
        let rows = text.lines().filter(|line| line.starts_with("| `"));
        let row = |line: &str| {
            let mut cells = line
                .trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().replace('`', ""));
            let mut next = || cells.next().unwrap_or_default();
            Row {
                functions: next().split(' ').map(String::from).collect(),
                operands: next(),
                kiln: next(),
                used: false,
            }
        };
        Differences(rows.map(row).collect())
    }

    /// Whether a row says that this case differs in this way.
    pub(crate) fn allow(&mut self, case: &Case, found: &Wrong) -> bool {
        let kiln = match found {
            Wrong::Error(_) => "error".to_string(),
            Wrong::Accepted => "result".to_string(),
            Wrong::Count(count) => format!("{count} results"),
            Wrong::Spec(dtype, _) => dtype.clone(),
            Wrong::Value(..) => "values".to_string(),
        };
        let mut operands: Vec<&str> = case.inputs.iter().map(|input| &*input.dtype).collect();
        if let Some(dtype) = case.arguments["dtype"].as_str() {
            operands.extend(["->", dtype]);
        }
        let operands = operands.join(" ");
        let row = self.0.iter_mut().find(|row| {
            row.kiln == kiln
                && (row.operands == "any" || row.operands == operands)
                && row
                    .functions
                    .iter()
                    .any(|name| name == "any" || *name == case.function)
        });
        row.map(|row| row.used = true).is_some()
    }

    /// Rows that no case needed.
    pub(crate) fn unused(&self) -> Vec<String> {
        let unused = self.0.iter().filter(|row| !row.used);
        unused.map(|row| format!("{row:?}")).collect()
    }
}
