#!/usr/bin/env python3
"""rewrite.py FROM TO - CUDA C as C++ for emulator.h.

Every .cu and .cuh file under FROM becomes a .cpp and a .cuh file under TO, in which launches, dynamic shared memory and assembly are
calls of the emulator. Files that would not change are left alone. Assembly that is not in the table is an error."""
import pathlib
import re
import sys

# A statement of assembly, from its name to the semicolon, and what it does.
ASSEMBLY = [
    (r'ex2\.approx\.ftz\.f32 %0, %1;" : "=f"\((\w+)\) : "f"\((.*?)\)', r'\1 = exp2f(\2);'),
    (r'rcp\.approx\.ftz\.f32 %0, %1;" : "=f"\((\w+)\) : "f"\((.*?)\)', r'\1 = 1.0f / (\2);'),
    (r'lg2\.approx\.ftz\.f32 %0, %1;" : "=f"\((\w+)\) : "f"\((.*?)\)', r'\1 = log2f(\2);'),
    (r'ldmatrix\.sync\.aligned\.m8n8\.x4\.shared.*?', 'emulator_load_matrices(r, from, false);'),
    (r'ldmatrix\.sync\.aligned\.m8n8\.x4\.trans.*?', 'emulator_load_matrices(r, from, true);'),
    (r'stmatrix\.sync\.aligned\.m8n8\.x4\.trans.*?', 'abort();'),  # the emulator is no sm_90 there
    (r'movmatrix\.sync\.aligned.*?', 'd = emulator_transpose(a);'),
    (r'mma\.sync\.aligned\.m16n8k16.*?', 'emulator_mma_bf16(d, a, b0, b1);'),
    (r'mma\.sync\.aligned\.m16n8k8[^;]*;[^;]*\(one\).*?',
     'const float a_[4] = {one, 0.0f, 0.0f, one}, b_[2] = {b, c}; emulator_mma_tf32(d, a_, b_);'),
    (r'mma\.sync\.aligned\.m16n8k8[^;]*;[^;]*\(left\[0\]\).*?', 'emulator_mma_tf32(sums, left, right);'),
    (r'cp\.async\.c[ag]\.shared\.global \[%0\], \[%1\], (\d+), %2;.*?', r'emulator_copy(to, from, \1, bytes);'),
    (r'cp\.async\.ca\.shared\.global \[%0\], \[%1\], %2, %3;.*?', 'emulator_copy(shared, from, BYTES, copy ? BYTES : 0);'),
    (r'cp\.async\.ca\.shared\.global \[%0\], \[%1\], %2;.*?', 'emulator_copy(shared, from, BYTES, BYTES);'),
    (r'\{ \.reg \.pred p; setp\.ne\.b32 p, %(?:37|69), 0; "\s*"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k16\.f32\.bf16\.bf16 .*?',
     r'emulator_wgmma_bf16_left(&d[0][0], \1, a, b, add, RIGHT_TRANSPOSED);'),
    (r'\{ \.reg \.pred p; setp\.ne\.b32 p, %\d+, 0; "\s*"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k16\.f32\.bf16\.bf16 .*?',
     r'emulator_wgmma_bf16(&d[0][0], \1, a, b, add, LEFT_TRANSPOSED, RIGHT_TRANSPOSED);'),
    (r'bar\.sync %0, (\d+);" ::"r"\((.*?)\) : "memory"', r'emulator_team_barrier(\2, \1);'),
    (r'wgmma\.fence\.sync.*?', 'emulator_wgmma_fence();'),
    (r'wgmma\.commit_group.*?', 'emulator_wgmma_commit();'),
    (r'wgmma\.wait_group\.sync\.aligned %0;" ::"n"\((\w+)\).*?', r'emulator_wgmma_wait(\1);'),
    (r'fence\.proxy\.async\.shared::cta.*?', 'emulator_proxy_fence();'),
    (r'" : "\+f"\(.*?', ';'),
    (r'prefetch\.global\.L2.*?', ';'),
    (r'cp\.async\.commit_group.*?', 'emulator_copies_commit();'),
    (r'cp\.async\.wait_group %0;" ::"n"\((\w+)\).*?', r'emulator_copies_wait_but(\1);'),
    (r'cp\.async\.wait_all.*?', 'emulator_copies_wait();'),
]


def closing(text, start, pair):
    """Where the bracket that opens at `start` closes."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == pair[0]) - (text[i] == pair[1])
        if depth == 0:
            return i
    raise ValueError('a bracket does not close')


def opening(text, end, pair):
    """Where the bracket that closes at `end` opens."""
    depth = 0
    for i in range(end, -1, -1):
        depth += (text[i] == pair[1]) - (text[i] == pair[0])
        if depth == 0:
            return i
    raise ValueError('a bracket does not open')


def arguments(text):
    """At the commas that are in no bracket."""
    parts, depth, begin = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in '([{') - (c in ')]}')
        if c == ',' and depth == 0:
            parts.append(text[begin:i])
            begin = i + 1
    return parts + [text[begin:]]


def launches(text):
    """kernel<T><<<blocks, threads, shared, stream>>>(a, b); each thread calls kernel<T>(a, b) with the values of now."""
    while '<<<' in text:
        mark = text.index('<<<')
        end = len(text[:mark].rstrip())
        begin = opening(text, end - 1, '<>') if text[end - 1] == '>' else end
        while re.match(r'[\w:]', text[begin - 1]):
            begin -= 1
        behind = text.index('>>>', mark)
        last = closing(text, behind + 3, '()')
        blocks, threads, shared, stream = arguments(text[mark + 3:behind])
        text = (f'{text[:begin]}emulator_launch(dim3({blocks}), dim3({threads}), {shared}, {stream}, '
                f'[=, values_ = std::make_tuple{text[behind + 3:last + 1]}]() mutable {{ '
                f'std::apply([&](auto &...value_) {{ {text[begin:end]}(value_...); }}, values_); }}){text[last + 1:]}')
    return text


def rewrite(text, name):
    for pattern, call in ASSEMBLY:
        text = re.sub(r'\basm(?: volatile)?\(\s*"' + pattern + r'\);[ \t]*$', call, text, flags=re.S | re.M)
    left = re.search(r'\basm(?: volatile)?\(\s*"[^"]*"', text)
    if left:
        sys.exit(f'{name}: {left.group(0)} is not emulated')
    text = re.sub(r'extern __shared__ (?:__align__\(\d+\) )?(\w+) (\w+)\[\];',
                  r'\1 *\2 = (\1 *)emulator_dynamic_shared();', text)
    return launches(text)


def main():
    source, target = map(pathlib.Path, sys.argv[1:3])
    for path in sorted(source.rglob('*.cu*')):
        to = target / path.relative_to(source)
        if path.suffix == '.cu':
            to = to.with_suffix('.cpp')
        text = rewrite(path.read_text(), path)
        to.parent.mkdir(parents=True, exist_ok=True)
        if not to.exists() or to.read_text() != text:
            to.write_text(text)


main()
