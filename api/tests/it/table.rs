//! How many cells of a matrix are as they must be, printed as a table.

use std::collections::BTreeMap;

/// Rows by their names in the order they came, with a count per column and how many cells are as the table of rights says.
pub struct Table {
    columns: Vec<&'static str>,
    order: Vec<String>,
    rows: BTreeMap<String, (Vec<usize>, usize)>,
}

impl Table {
    pub fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), order: Vec::new(), rows: BTreeMap::new() }
    }

    pub fn count(&mut self, name: &str, column: usize, is_right: bool) {
        if !self.rows.contains_key(name) {
            self.order.push(name.to_owned());
            self.rows.insert(name.to_owned(), (vec![0; self.columns.len()], 0));
        }
        let (counts, right) = self.rows.get_mut(name).expect("just made");
        counts[column] += 1;
        *right += usize::from(is_right);
    }

    /// Cells of a column, over all rows.
    pub fn sum(&self, column: usize) -> usize {
        self.rows.values().map(|(counts, _)| counts[column]).sum()
    }

    pub fn print(&self, title: &str) {
        println!("\n{title}\n");
        println!("| caller | cells | as the table of rights says | {} |", self.columns.join(" | "));
        println!("|---|{}", "---:|".repeat(self.columns.len() + 2));
        let line = |name: &str, counts: &[usize], right: usize| {
            let counts_told: Vec<_> = counts.iter().map(ToString::to_string).collect();
            println!("| {name} | {} | {right} | {} |", counts.iter().sum::<usize>(), counts_told.join(" | "));
        };
        for name in &self.order {
            let (counts, right) = &self.rows[name];
            line(name, counts, *right);
        }
        let sums: Vec<_> = (0..self.columns.len()).map(|column| self.sum(column)).collect();
        line("all", &sums, self.rows.values().map(|(_, right)| right).sum());
    }
}
