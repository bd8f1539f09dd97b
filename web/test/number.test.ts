import { describe, expect, it } from "vitest";
import { age, bytes, decimals, integer, percent, prefixFor, quantity, significant, unitText } from "../src/model/number";

const S = "\u202f";
const N = "\u00a0";

describe("numbers", () => {
  it("keep so many significant digits", () => {
    expect(significant(1.2345, 3)).toBe("1.23");
    expect(significant(12.345, 3)).toBe("12.3");
    expect(significant(123.45, 3)).toBe("123");
    expect(significant(1234.5, 3)).toBe(`1${S}230`);
    expect(significant(999.9, 3)).toBe(`1${S}000`);
    expect(significant(0.000123, 3)).toBe("0.000123");
    expect(significant(50.0213, 4)).toBe("50.02");
    expect(significant(1e300, 3)).toBe("1.00×10³⁰⁰");
    expect(significant(-2.5e-9, 2)).toBe("\u22122.5×10⁻⁹");
  });

  it("write a true minus sign, and no minus zero", () => {
    expect(significant(-12.3, 3)).toBe("\u221212.3");
    expect(decimals(-0.001, 2)).toBe("0.00");
    expect(significant(-0, 3)).toBe("0");
  });

  it("say missing, never 0, for what is not there", () => {
    for (const nothing of [null, undefined, NaN, Infinity]) {
      expect(significant(nothing, 3)).toBe("—");
      expect(integer(nothing)).toBe("—");
      expect(quantity(nothing, "W", 3)).toBe("—");
      expect(age(nothing)).toBe("—");
      expect(bytes(nothing)).toBe("—");
    }
    expect(percent(0, 0)).toBe("—");
  });

  it("group exact integers by three", () => {
    expect(integer(41207)).toBe(`41${S}207`);
    expect(integer(1234567890)).toBe(`1${S}234${S}567${S}890`);
    expect(integer(999)).toBe("999");
  });
});

describe("units", () => {
  it("take the prefix that leaves one to three digits before the mark", () => {
    expect(quantity(950, "W", 3)).toBe(`950${N}W`);
    expect(quantity(1_204_000, "W", 3)).toBe(`1.20${N}MW`);
    expect(quantity(-300_000, "W", 3)).toBe(`\u2212300${N}kW`);
    expect(quantity(4.2e6, "Wh", 3)).toBe(`4.20${N}MWh`);
  });

  it("never put a prefix to a unit that bears none", () => {
    expect(quantity(88_000, "degC", 4)).toBe(`88${S}000${N}°C`);
    expect(quantity(1500, "m3/h", 3)).toBe(`1${S}500${N}m³/h`);
    expect(quantity(12344, null, 4)).toBe(`12${S}340`);
    expect(quantity(50_000, "Hz", 3)).toBe(`50${S}000${N}Hz`);
  });

  it("hold a prefix while the figures stay readable, then change it", () => {
    const mega = prefixFor("W", 1.2e6);
    expect(mega.sign).toBe("M");
    expect(prefixFor("W", 0.9e6, mega)).toBe(mega);
    expect(prefixFor("W", 1.9e9, mega)).toBe(mega);
    expect(prefixFor("W", 0.4e6, mega).sign).toBe("k");
    expect(prefixFor("W", 2.1e9, mega).sign).toBe("G");
    expect(prefixFor("W", 0, mega)).toBe(mega);
  });

  it("print units as people write them", () => {
    expect(unitText("m3/h")).toBe("m³/h");
    expect(unitText("W", prefixFor("W", 5e3))).toBe("kW");
    expect(unitText(null)).toBe("");
  });
});

describe("shares, sizes and ages", () => {
  it("reach 100 % only when nothing is missing", () => {
    expect(percent(4199, 4200)).toBe(`99.9${N}%`);
    expect(percent(99_999, 100_000)).toBe(`99.9${N}%`);
    expect(percent(4200, 4200)).toBe(`100${N}%`);
    expect(percent(41, 44)).toBe(`93.1${N}%`);
    expect(percent(0, 44)).toBe(`0.0${N}%`);
  });

  it("size in binary multiples", () => {
    expect(bytes(17)).toBe(`17${N}B`);
    expect(bytes(1_873_412_000)).toBe(`1.74${N}GiB`);
  });

  it("tell ages in seconds first, then in at most two units", () => {
    expect(age(0.4)).toBe(`<${N}1${N}s`);
    expect(age(4.9)).toBe(`4${N}s`);
    expect(age(99)).toBe(`99${N}s`);
    expect(age(185)).toBe(`3${N}min`);
    expect(age(7265)).toBe(`2${N}h${N}1${N}min`);
    expect(age(273_600)).toBe(`3${N}d${N}4${N}h`);
    expect(age(-3)).toBe(`<${N}1${N}s`);
    expect(age(-3600)).toBe(`60${N}min${N}ahead`);
  });
});
