//! From elementwise programs to WGSL.

use kiln_plan::{DType, Expr, Instr, Kind};

/// The WGSL type of a register.
pub(crate) fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Float => "f32",
        Kind::U32 => "u32",
        Kind::I32 => "i32",
        Kind::Bool => "bool",
    }
}

/// A program as a function `apply` of registers `a0`, `a1`, …, whose constants are the fields
/// `c0`, `c1`, … of the parameters `p`. `None` for a program that is not valid for these operands.
pub(crate) fn function(expr: &Expr, inputs: &[DType]) -> Option<String> {
    let kinds = expr.kinds(inputs).ok()?;
    let last = kinds.len().checked_sub(1)?;
    let parameters: Vec<String> = inputs
        .iter()
        .enumerate()
        .map(|(i, input)| format!("a{i}: {}", type_of(input.kind())))
        .collect();
    let mut text = format!(
        "fn apply({}) -> {} {{\n",
        parameters.join(", "),
        type_of(kinds[last])
    );
    for (i, instr) in expr.code().iter().enumerate() {
        let value = match *instr {
            Instr::Input(n) => format!("a{n}"),
            Instr::Const(n) => match kinds[i] {
                Kind::Float => format!("bitcast<f32>(p.c{n})"),
                Kind::U32 => format!("p.c{n}"),
                Kind::I32 => format!("bitcast<i32>(p.c{n})"),
                Kind::Bool => format!("(p.c{n} != 0u)"),
            },
            Instr::Cast(dtype, r) => {
                let from = type_of(kinds[r as usize]);
                format!("{from}_to_{dtype}(r{r})")
            }
            Instr::Apply(scalar, registers) => {
                let names: &[&str] = match scalar.arity() {
                    3 => &["{c}", "{a}", "{b}"],
                    _ => &["{a}", "{b}"],
                };
                let kind = type_of(kinds[registers[scalar.arity() - 1] as usize]);
                let mut value = scalar.wgsl().replace("{kind}", kind);
                for (name, register) in names.iter().zip(&registers[..scalar.arity()]) {
                    value = value.replace(name, &format!("r{register}"));
                }
                value
            }
        };
        text += &format!("    let r{i} = {value};\n");
    }
    Some(text + &format!("    return r{last};\n}}"))
}
