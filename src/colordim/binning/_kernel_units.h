/* Which units (channels, features) are active somewhere: elements as integers of type REAL, for one processor level.
 * A magnitude of `least` or more is active; NaN and infinities have the largest magnitudes of all. Only units that are
 * not known to be active are looked at, and no further than to their first active element. */

/* Where a unit has `inner` elements in a row. Return how many of the units are not active. Memory is read in its order. */
static int64_t NAME(mark_runs)(const REAL *x, int64_t outer, int64_t units, int64_t inner, REAL least, uint8_t *active)
{
    int64_t inactive = 0;
    for (int64_t unit = 0; unit < units; ++unit)
        inactive += !active[unit];
    for (int64_t i = 0; i < outer && inactive; ++i)
        for (int64_t unit = 0; unit < units; ++unit) {
            if (active[unit])
                continue;
            const REAL *run = x + (i * units + unit) * inner;
            REAL any = 0;
            for (int64_t begin = 0, group = 16; begin < inner && !any; begin += group, group = group < 1024 ? 4 * group : group) {
                int64_t end = inner - begin < group ? inner : begin + group;
                VECTORISE(reduction(| : any))
                for (int64_t j = begin; j < end; ++j)
                    any |= (run[j] & MAGNITUDE) >= least;
            }
            active[unit] = any != 0;
            inactive -= any != 0;
        }
    return inactive;
}

/* Where the elements of all units lie side by side, row by row. Rows are looked at as a whole until few units are left. */
static int64_t NAME(mark_columns)(const REAL *x, int64_t rows, int64_t units, REAL least, uint8_t *active)
{
    enum { COLUMNS = 1024, FEW = 64 };
    int64_t all_inactive = 0;
    for (int64_t start = 0; start < units; start += COLUMNS) {
        const int columns = units - start < COLUMNS ? (int)(units - start) : COLUMNS;
        uint8_t *here = active + start;
        REAL seen[COLUMNS];
        int inactive = 0;
        for (int c = 0; c < columns; ++c) {
            seen[c] = here[c];
            inactive += !here[c];
        }
        int64_t row = 0;
        for (int64_t group = 1; row < rows && inactive > columns / FEW; group = group < 16 ? 2 * group : group) {
            int64_t end = rows - row < group ? rows : row + group;
            for (; row < end; ++row) {
                const REAL *values = x + row * units + start;
                VECTORISE()
                for (int c = 0; c < columns; ++c)
                    seen[c] |= (values[c] & MAGNITUDE) >= least;
            }
            inactive = 0;
            for (int c = 0; c < columns; ++c)
                inactive += seen[c] == 0;
        }
        for (int c = 0; c < columns && inactive; ++c) {
            for (int64_t r = row; r < rows && !seen[c]; ++r)
                if ((x[r * units + start + c] & MAGNITUDE) >= least) {
                    seen[c] = 1;
                    --inactive;
                }
        }
        for (int c = 0; c < columns; ++c)
            here[c] = seen[c] != 0;
        all_inactive += inactive;
    }
    return all_inactive;
}

static int64_t NAME(mark)(const char *data, int64_t outer, int64_t units, int64_t inner, REAL least, uint8_t *active)
{
    const REAL *x = (const REAL *)data;
    return inner == 1 ? NAME(mark_columns)(x, outer, units, least, active)
                      : NAME(mark_runs)(x, outer, units, inner, least, active);
}
