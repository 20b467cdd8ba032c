//! [`Num`]: a number that compares by value, whatever form it was written in.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

/// A JSON number. Whole numbers of any form are [`Num::Int`], so 1, 1.0 and 1e0 are equal and hash alike, and large
/// integers are not rounded to floats before they are compared.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Num {
    Int(i128),
    /// Has a fraction, or is at least [`INT_MAX`] in size; always finite.
    Float(f64),
}

/// Floats below this are turned into integers when they are whole. Every JSON integer is far below.
const INT_MAX: f64 = 1e30;

impl From<u64> for Num {
    fn from(value: u64) -> Num {
        Num::Int(i128::from(value))
    }
}

impl From<i64> for Num {
    fn from(value: i64) -> Num {
        Num::Int(i128::from(value))
    }
}

impl From<f64> for Num {
    fn from(value: f64) -> Num {
        if value.abs() < INT_MAX && value.fract() == 0.0 {
            Num::Int(value as i128) // exact: whole, and far inside the range
        } else {
            Num::Float(value)
        }
    }
}

impl From<&serde_json::Number> for Num {
    fn from(number: &serde_json::Number) -> Num {
        match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(value), _, _) => Num::from(value),
            (_, Some(value), _) => Num::from(value),
            (_, _, value) => Num::from(value.unwrap_or(f64::MAX)),
        }
    }
}

impl Ord for Num {
    fn cmp(&self, other: &Num) -> Ordering {
        match (self, other) {
            (Num::Int(a), Num::Int(b)) => a.cmp(b),
            (Num::Float(a), Num::Float(b)) => a.total_cmp(b),
            (Num::Int(a), Num::Float(b)) => int_cmp_float(*a, *b),
            (Num::Float(a), Num::Int(b)) => int_cmp_float(*b, *a).reverse(),
        }
    }
}

fn int_cmp_float(int: i128, float: f64) -> Ordering {
    if float.abs() >= INT_MAX {
        return if float > 0.0 { Ordering::Less } else { Ordering::Greater };
    }
    // It has a fraction, so it lies strictly between its floor and the next integer.
    if int <= float.floor() as i128 { Ordering::Less } else { Ordering::Greater }
}

impl PartialOrd for Num {
    fn partial_cmp(&self, other: &Num) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Num {
    fn eq(&self, other: &Num) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Num {}

impl Hash for Num {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Num::Int(value) => value.hash(state),
            Num::Float(value) => value.to_bits().hash(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn compare_by_value() {
        assert_eq!(Num::from(1.0), Num::from(1_u64));
        assert_eq!(Num::from(-0.0), Num::from(0_u64));
        assert_eq!(Num::from(1e20), Num::from(100_000_000_000_000_000_000.0));
        assert!(Num::from(u64::MAX) > Num::from(i64::MAX));
        assert!(Num::from(9_007_199_254_740_993_u64) > Num::from(9_007_199_254_740_992.0));
        assert!(Num::from(2_u64) > Num::from(1.5));
        assert!(Num::from(-2_i64) < Num::from(-1.5));
        assert!(Num::from(-1_i64) > Num::from(-1.5));
        assert!(Num::from(1e300) > Num::from(u64::MAX));
        assert!(Num::from(-1e300) < Num::from(i64::MIN));
    }

    fn any_number() -> impl Strategy<Value = Num> {
        prop_oneof![
            any::<u64>().prop_map(Num::from),
            any::<i64>().prop_map(Num::from),
            prop::num::f64::NORMAL.prop_map(Num::from),
            (-20_i64..20).prop_map(|n| Num::from(n as f64 / 4.0)),
        ]
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in any_number(), b in any_number(), c in any_number()) {
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }
    }
}
