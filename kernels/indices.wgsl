// i0 to i3: where element I of an array with the lengths p.d1 to p.d3 lies along each axis.
    let i3 = $I % p.d3;
    let r3 = $I / p.d3;
    let i2 = r3 % p.d2;
    let r2 = r3 / p.d2;
    let i1 = r2 % p.d1;
    let i0 = r2 / p.d1;
