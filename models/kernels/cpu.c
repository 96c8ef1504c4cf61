/* The decoder's loops over elements, fused: one pass over memory where a chain of PyTorch's operators makes several.
 *
 * Compiled by models/kernels/library.py, once with numbers as fp32 and once, with -DBF16, as bf16; arithmetic is fp32
 * in both. Rows are shared out over `threads` in fixed parts, so that the same number of them gives the same bits. Products
 * of matrices are not made here. A number that is none stays none.
 */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#ifdef BF16
typedef uint16_t number;

static inline float get(number x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* To nearest, ties to even. */
static inline number put(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return value == value ? (number)rounded : 0x7fc0;
}
#else
typedef float number;

static inline float get(number x) { return x; }
static inline number put(float value) { return value; }
#endif

#define ROWS _Pragma("omp parallel for schedule(static) num_threads((int)threads)")
#define SIMD _Pragma("omp simd")
#define SUM(x) _Pragma(#x)

/* e^x for x <= 88, within two units in the last place (Cephes; Moshier 1989); vectorises, unlike libm's. */
static inline float exponential(float x) {
    x = x < -87.3f ? -87.3f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = rintf(x * 1.44269504088896341f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}

/* sum = x + y, out = sum / rms(sum) * weight, root = 1 / rms(sum). Without y (NULL) sum is x and is not written. */
void add_rms_norm(int64_t threads, int64_t rows, int64_t d, const number *x, const number *y, const float *weight, float eps,
                  number *sum, number *out, float *root) {
    ROWS
    for (int64_t row = 0; row < rows; row++) {
        const number *a = x + row * d;
        number *o = out + row * d;
        float squares = 0;
        if (y) {
            const number *b = y + row * d;
            number *s = sum + row * d;
            SUM(omp simd reduction(+ : squares))
            for (int64_t i = 0; i < d; i++) {
                s[i] = put(get(a[i]) + get(b[i]));
                squares += get(s[i]) * get(s[i]);
            }
            a = s;
        } else {
            SUM(omp simd reduction(+ : squares))
            for (int64_t i = 0; i < d; i++) squares += get(a[i]) * get(a[i]);
        }
        float r = 1.0f / sqrtf(squares / (float)d + eps);
        root[row] = r;
        SIMD
        for (int64_t i = 0; i < d; i++) o[i] = put(get(a[i]) * r * weight[i]);
    }
}

/* grad_x = gradient through the norm + grad_sum (NULL: none); grad_weight [threads, d] in one part a thread. */
void add_rms_norm_backward(int64_t threads, int64_t rows, int64_t d, const number *sum, const float *weight, const float *root,
                           const number *grad_out, const number *grad_sum, number *grad_x, float *grad_weight) {
    ROWS
    for (int64_t row = 0; row < rows; row++) {
        const number *x = sum + row * d, *g = grad_out + row * d;
        number *gx = grad_x + row * d;
        float *gw = grad_weight + omp_get_thread_num() * d;
        float r = root[row], dot = 0;
        SUM(omp simd reduction(+ : dot))
        for (int64_t i = 0; i < d; i++) {
            dot += get(g[i]) * weight[i] * get(x[i]);
            gw[i] += get(g[i]) * get(x[i]) * r;
        }
        float along = dot * r * r * r / (float)d;
        if (grad_sum) {
            const number *gs = grad_sum + row * d;
            SIMD
            for (int64_t i = 0; i < d; i++)
                gx[i] = put(get(g[i]) * weight[i] * r - get(x[i]) * along + get(gs[i]));
        } else {
            SIMD
            for (int64_t i = 0; i < d; i++) gx[i] = put(get(g[i]) * weight[i] * r - get(x[i]) * along);
        }
    }
}

/* Heads of one token after another [tokens, heads, size]: the first `queries` and then `keys` of them are normed (by
 * weights of their kind; NULL: not) and rotated (cosine, sine [tokens, size / 2]), the rest are copied. Each goes to the
 * row of `out` that `slots` [tokens, heads] names. */
void spread_heads(int64_t threads, int64_t tokens, int64_t heads, int64_t size, int64_t queries, int64_t keys, const number *x,
                  const float *query_weight, const float *key_weight, float eps, const float *cosine,
                  const float *sine, const int64_t *slots, number *out) {
    int64_t half = size / 2;
    ROWS
    for (int64_t token = 0; token < tokens; token++) {
        const float *c = cosine + token * half, *s = sine + token * half;
        for (int64_t head = 0; head < heads; head++) {
            const number *a = x + (token * heads + head) * size, *b = a + half;
            number *o = out + slots[token * heads + head] * size;
            if (head >= queries + keys) {
                memcpy(o, a, (size_t)size * sizeof(number));
                continue;
            }
            const float *w = head < queries ? query_weight : key_weight;
            if (w) {
                float squares = 0;
                SUM(omp simd reduction(+ : squares))
                for (int64_t i = 0; i < size; i++) squares += get(a[i]) * get(a[i]);
                float r = 1.0f / sqrtf(squares / (float)size + eps);
                SIMD
                for (int64_t i = 0; i < half; i++) {
                    float first = get(a[i]) * r * w[i], second = get(b[i]) * r * w[i + half];
                    o[i] = put(first * c[i] - second * s[i]);
                    o[i + half] = put(second * c[i] + first * s[i]);
                }
            } else {
                SIMD
                for (int64_t i = 0; i < half; i++) {
                    float first = get(a[i]), second = get(b[i]);
                    o[i] = put(first * c[i] - second * s[i]);
                    o[i + half] = put(second * c[i] + first * s[i]);
                }
            }
        }
    }
}

/* Gradient of `spread_heads`: from rows of `grad` to grad_x; grad_weight [threads, 2, size], queries' and keys'. */
void spread_heads_backward(int64_t threads, int64_t tokens, int64_t heads, int64_t size, int64_t queries, int64_t keys,
                           const number *x, const float *query_weight, const float *key_weight, float eps,
                           const float *cosine, const float *sine, const int64_t *slots, const number *grad,
                           number *grad_x, float *grad_weight) {
    int64_t half = size / 2;
    ROWS
    for (int64_t token = 0; token < tokens; token++) {
        const float *c = cosine + token * half, *s = sine + token * half;
        for (int64_t head = 0; head < heads; head++) {
            int64_t place = (token * heads + head) * size;
            const number *a = x + place, *g = grad + slots[token * heads + head] * size;
            number *gx = grad_x + place;
            if (head >= queries + keys) {
                memcpy(gx, g, (size_t)size * sizeof(number));
                continue;
            }
            const float *w = head < queries ? query_weight : key_weight;
            if (!w) {
                SIMD
                for (int64_t i = 0; i < half; i++) {
                    float first = get(g[i]), second = get(g[i + half]);
                    gx[i] = put(first * c[i] + second * s[i]);
                    gx[i + half] = put(second * c[i] - first * s[i]);
                }
                continue;
            }
            float *gw = grad_weight + (omp_get_thread_num() * 2 + (head >= queries)) * size;
            float squares = 0, dot = 0;
            SUM(omp simd reduction(+ : squares, dot))
            for (int64_t i = 0; i < half; i++) {
                float first = get(g[i]) * c[i] + get(g[i + half]) * s[i];
                float second = get(g[i + half]) * c[i] - get(g[i]) * s[i];
                squares += get(a[i]) * get(a[i]) + get(a[i + half]) * get(a[i + half]);
                dot += first * w[i] * get(a[i]) + second * w[i + half] * get(a[i + half]);
            }
            float r = 1.0f / sqrtf(squares / (float)size + eps);
            float along = dot * r * r * r / (float)size;
            SIMD
            for (int64_t i = 0; i < half; i++) {
                float first = get(g[i]) * c[i] + get(g[i + half]) * s[i];
                float second = get(g[i + half]) * c[i] - get(g[i]) * s[i];
                gw[i] += first * get(a[i]) * r;
                gw[i + half] += second * get(a[i + half]) * r;
                gx[i] = put(first * w[i] * r - get(a[i]) * along);
                gx[i + half] = put(second * w[i + half] * r - get(a[i + half]) * along);
            }
        }
    }
}

/* Rows of x by number: out[i] = x[slots[i]], each of `size` numbers. */
void gather_rows(int64_t threads, int64_t count, int64_t size, const number *x, const int64_t *slots, number *out) {
    ROWS
    for (int64_t i = 0; i < count; i++) memcpy(out + i * size, x + slots[i] * size, (size_t)size * sizeof(number));
}

/* The way back: out[slots[i]] = x[i]. Rows that nobody names stay as they are. */
void scatter_rows(int64_t threads, int64_t count, int64_t size, const number *x, const int64_t *slots, number *out) {
    ROWS
    for (int64_t i = 0; i < count; i++) memcpy(out + slots[i] * size, x + i * size, (size_t)size * sizeof(number));
}

/* In place, softmax of scale * scores [rows, columns] over the first `before + row % period + 1` columns; 0 beyond. */
void causal_softmax(int64_t threads, int64_t rows, int64_t columns, int64_t before, int64_t period, float scale, number *scores,
                    float *scratch) {
    ROWS
    for (int64_t row = 0; row < rows; row++) {
        number *s = scores + row * columns;
        float *e = scratch + omp_get_thread_num() * columns;
        int64_t seen = before + row % period + 1;
        float most = -INFINITY, total = 0;
        SUM(omp simd reduction(max : most))
        for (int64_t i = 0; i < seen; i++) most = get(s[i]) > most ? get(s[i]) : most;
        SUM(omp simd reduction(+ : total))
        for (int64_t i = 0; i < seen; i++) {
            e[i] = exponential((get(s[i]) - most) * scale);
            total += e[i];
        }
        float share = 1.0f / total;
        SIMD
        for (int64_t i = 0; i < seen; i++) s[i] = put(e[i] * share);
        memset(s + seen, 0, (size_t)(columns - seen) * sizeof(number));
    }
}

/* In place of `grad`: the gradient of the scores from that of the softmax p. */
void causal_softmax_backward(int64_t threads, int64_t rows, int64_t columns, int64_t before, int64_t period, float scale,
                             const number *p, number *grad) {
    ROWS
    for (int64_t row = 0; row < rows; row++) {
        const number *q = p + row * columns;
        number *g = grad + row * columns;
        int64_t seen = before + row % period + 1;
        float dot = 0;
        SUM(omp simd reduction(+ : dot))
        for (int64_t i = 0; i < seen; i++) dot += get(q[i]) * get(g[i]);
        SIMD
        for (int64_t i = 0; i < seen; i++) g[i] = put(get(q[i]) * (get(g[i]) - dot) * scale);
        memset(g + seen, 0, (size_t)(columns - seen) * sizeof(number));
    }
}

/* out = silu(gate) * up, of x [rows, 2 width] = gate, up. */
void swiglu(int64_t threads, int64_t rows, int64_t width, const number *x, number *out) {
    ROWS
    for (int64_t row = 0; row < rows; row++) {
        const number *gate = x + row * 2 * width, *up = gate + width;
        number *o = out + row * width;
        SIMD
        for (int64_t i = 0; i < width; i++) {
            float a = get(gate[i]);
            o[i] = put(a / (1.0f + exponential(-a)) * get(up[i]));
        }
    }
}

void swiglu_backward(int64_t threads, int64_t rows, int64_t width, const number *x, const number *grad, number *grad_x) {
    ROWS
    for (int64_t row = 0; row < rows; row++) {
        const number *gate = x + row * 2 * width, *up = gate + width, *g = grad + row * width;
        number *grad_gate = grad_x + row * 2 * width, *grad_up = grad_gate + width;
        SIMD
        for (int64_t i = 0; i < width; i++) {
            float a = get(gate[i]), y = get(g[i]);
            float sigmoid = 1.0f / (1.0f + exponential(-a));
            grad_up[i] = put(y * a * sigmoid);
            grad_gate[i] = put(y * get(up[i]) * sigmoid * (1.0f + a * (1.0f - sigmoid)));
        }
    }
}

/* Cross-entropy of logits [rows, columns] against targets (below 0: does not count), in nats; the z-loss of each row,
 * weight * (log of the softmax's denominator)^2; and, if asked for, in place of the logits the gradient of
 * scale * (nats + z-loss). scratch: [threads, columns]. */
void cross_entropy(int64_t threads, int64_t rows, int64_t columns, number *logits, const int64_t *targets, float scale, float weight,
                   int64_t gradient, float *nats, float *penalty, float *scratch) {
    ROWS
    for (int64_t row = 0; row < rows; row++) {
        number *l = logits + row * columns;
        int64_t target = targets[row];
        if (target < 0) {
            nats[row] = penalty[row] = 0;
            if (gradient) memset(l, 0, (size_t)columns * sizeof(number));
            continue;
        }
        float *e = scratch + omp_get_thread_num() * columns;
        float most = -INFINITY, total = 0, of_target = get(l[target]);
        SUM(omp simd reduction(max : most))
        for (int64_t i = 0; i < columns; i++) most = get(l[i]) > most ? get(l[i]) : most;
        SUM(omp simd reduction(+ : total))
        for (int64_t i = 0; i < columns; i++) {
            e[i] = exponential(get(l[i]) - most);
            total += e[i];
        }
        float partition = most + logf(total);
        nats[row] = partition - of_target;
        penalty[row] = weight * partition * partition;
        if (!gradient) continue;
        float rate = scale * (1.0f + 2.0f * weight * partition), share = rate / total;
        SIMD
        for (int64_t i = 0; i < columns; i++) l[i] = put(e[i] * share);
        l[target] = put(e[target] * share - scale);
    }
}
