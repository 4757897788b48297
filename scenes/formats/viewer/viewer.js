'use strict';
// Draws a world of Gaussians as WorldWarp does: surfaces sorted by depth and blended in sRGB, then the sky behind them,
// which never moves nearer; outlines before the sky are firm, and holes are filled smoothly from around.
const world = JSON.parse(document.getElementById('world').textContent);
const element = id => document.getElementById(id);
const canvas = element('view'), text = element('text');
const say = words => { text.textContent = words; text.style.opacity = words ? 1 : 0; };

// --- the worker: unpacks the file, and sorts ----------------------------------------------------
function work() {
  let count, places, order, keys, starts;
  function unpack(bytes, meta) {
    let n = meta.count;
    // Columns, each of bytes; those of 16 bits as all low bytes, then all high ones; differences to the row before.
    let at = 0;
    const column = () => {
      const out = bytes.subarray(at, at + n);
      at += n;
      for (let i = 1; i < n; i++) out[i] = (out[i] + out[i - 1]) & 255;
      return out;
    };
    const wide = () => {
      const low = bytes.subarray(at, at + n), high = bytes.subarray(at + n, at + 2 * n), out = new Uint16Array(n);
      at += 2 * n;
      let last = 0;
      for (let i = 0; i < n; i++) { last = (last + low[i] + 256 * high[i]) & 65535; out[i] = last; }
      return out;
    };
    const axes = [wide(), wide(), wide()], scales = [column(), column(), column()];
    const quats = [column(), column(), column()], largest = column();
    const colors = [column(), column(), column()], opacity = column();
    const rows = Math.ceil(n / 1024), data = new Uint32Array(rows * 1024 * 8), floats = new Float32Array(data.buffer);
    places = new Float32Array(3 * n);
    const scale = new Float32Array(256);
    for (let i = 0; i < 256; i++) scale[i] = Math.exp(meta.scale_low + (meta.scale_high - meta.scale_low) * i / 255);
    const q = [0, 0, 0, 0];
    for (let i = 0; i < n; i++) {
      for (let k = 0; k < 3; k++) {
        const low = meta.low[k], v = low + (meta.high[k] - low) * axes[k][i] / 65535;
        floats[8 * i + k] = places[3 * i + k] = Math.sign(v) * (Math.exp(Math.abs(v)) - 1);
      }
      // The three smaller components of a quaternion; the largest follows from them.
      let rest = 1;
      for (let k = 0, j = 0; k < 4; k++) if (k !== largest[i]) {
        q[k] = (quats[j++][i] / 127.5 - 1) * Math.SQRT1_2;
        rest -= q[k] * q[k];
      }
      q[largest[i]] = Math.sqrt(Math.max(rest, 0));
      const [w, x, y, z] = q;
      const r = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), 2 * (x * y + w * z),
        1 - 2 * (x * x + z * z), 2 * (y * z - w * x), 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)];
      const s = [scale[scales[0][i]], scale[scales[1][i]], scale[scales[2][i]]];
      // The covariance relative to its largest scale, as six signed fractions of 16 bits; that scale as a float.
      const most = Math.max(s[0], s[1], s[2]), c = new Int16Array(6);
      for (let a = 0, m = 0; a < 3; a++) for (let b = a; b < 3; b++, m++) {
        let sum = 0;
        for (let k = 0; k < 3; k++) sum += r[3 * a + k] * r[3 * b + k] * (s[k] / most) ** 2;
        c[m] = Math.round(Math.max(-1, Math.min(1, sum)) * 32767);
      }
      floats[8 * i + 3] = most;
      for (let m = 0; m < 3; m++) data[8 * i + 4 + m] = (c[2 * m] & 65535) | (c[2 * m + 1] << 16);
      data[8 * i + 7] = colors[0][i] | colors[1][i] << 8 | colors[2][i] << 16 | opacity[i] << 24;
    }
    count = meta.surfaces;  // the sky follows, and is never sorted
    order = new Uint32Array(count);
    keys = new Uint16Array(count);
    starts = new Uint32Array(65537);
    // What the photo shows: a logarithm of the depth, and 0 where it is a mixture, 1 of a surface, 2 of sky.
    let photo = null;
    if (meta.photo) {
      const [height, width] = meta.photo.size, map = new Float32Array(2 * width * height);
      n = width * height;
      const depth = wide(), kind = column();
      for (let i = 0; i < width * height; i++) {
        map[2 * i] = depth[i] === 65535 ? 0 : Math.exp(-meta.photo.low - meta.photo.step * depth[i]);
        map[2 * i + 1] = kind[i];
      }
      photo = map;
    }
    postMessage({ data, rows, photo }, [data.buffer]);
  }
  // Farthest first, by counting; `ahead` is the direction of view.
  function sort(ahead) {
    let low = Infinity, high = -Infinity;
    const depth = new Float32Array(count);
    for (let i = 0; i < count; i++) {
      const d = ahead[0] * places[3 * i] + ahead[1] * places[3 * i + 1] + ahead[2] * places[3 * i + 2] - ahead[3];
      depth[i] = d;
      if (d > 0) { if (d < low) low = d; if (d > high) high = d; }
    }
    // In the logarithm: fine steps where it is near, and distances may differ by thousands.
    const step = 65534 / Math.max(Math.log(high / low), 1e-9);
    starts.fill(0);
    for (let i = 0; i < count; i++) {
      keys[i] = depth[i] > 0 ? 65534 - Math.floor(step * Math.log(depth[i] / low)) : 65535;
      starts[keys[i] + 1]++;
    }
    for (let k = 0; k < 65536; k++) starts[k + 1] += starts[k];
    const shown = starts[65535];
    const out = new Uint32Array(count);
    for (let i = 0; i < count; i++) out[starts[keys[i]]++] = i;
    postMessage({ order: out, shown }, [out.buffer]);
  }
  onmessage = event => event.data.bytes ? unpack(event.data.bytes, event.data.meta) : sort(event.data.ahead);
}

// --- drawing --------------------------------------------------------------------------------------
const gl = canvas.getContext('webgl2', { antialias: false, alpha: false, preserveDrawingBuffer: true });
const splatVertex = `#version 300 es
precision highp float;
precision highp usampler2D;
uniform usampler2D rows;
uniform mat3 turn;         // camera from world
uniform vec3 from;         // of the camera, world
uniform vec2 focal, size;  // pixels
uniform vec4 kernel;       // kernel, extents between which footprints grow, growth
uniform float floor2;      // variance added to a footprint, pixels squared
in uint index;
out vec4 color;
out vec2 place;
out float inverse;
vec2 pair(uint bits) { return vec2(float(int(bits << 16) >> 16), float(int(bits) >> 16)) / 32767.0; }
void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);
  ivec2 at = ivec2(int(index & 1023u) * 2, int(index >> 10));
  uvec4 first = texelFetch(rows, at, 0), second = texelFetch(rows, at + ivec2(1, 0), 0);
  vec3 p = turn * (uintBitsToFloat(first.xyz) - from);
  if (p.z < 0.01) return;
  float most = uintBitsToFloat(first.w);
  vec2 a = pair(second.x), b = pair(second.y), c = pair(second.z);
  mat3 covariance = mat3(a.x, a.y, b.x, a.y, b.y, c.x, b.x, c.x, c.y) * (most * most);
  // As in the rasterizer: the linearization is held a little outside the image.
  vec2 limit = 0.65 * size / focal;
  vec2 ray = clamp(p.xy / p.z, -limit, limit);
  vec3 u = vec3(focal.x / p.z, 0.0, -focal.x * ray.x / p.z) * turn;
  vec3 v = vec3(0.0, focal.y / p.z, -focal.y * ray.y / p.z) * turn;
  vec3 cu = covariance * u, cv = covariance * v;
  float xx = dot(u, cu), xy = dot(u, cv), yy = dot(v, cv);
  float middle = 0.5 * (xx + yy), apart = length(vec2(0.5 * (xx - yy), xy));
  float extent = sqrt(middle + apart) / kernel.x;
  float grown = 1.0 + kernel.w * clamp((extent - kernel.y) / (kernel.z - kernel.y), 0.0, 1.0);
  xx = xx * grown * grown + floor2; xy *= grown * grown; yy = yy * grown * grown + floor2;
  middle = 0.5 * (xx + yy); apart = length(vec2(0.5 * (xx - yy), xy));
  float large = sqrt(middle + apart), small = sqrt(max(middle - apart, 1e-6));
  vec2 along = abs(xy) > 1e-6 ? normalize(vec2(xy, middle + apart - xx)) : (xx >= yy ? vec2(1, 0) : vec2(0, 1));
  color = vec4(uvec4(second.w, second.w >> 8, second.w >> 16, second.w >> 24) & 255u) / 255.0;
  if (color.a < 1.0 / 255.0) return;
  float reach = sqrt(2.0 * log(255.0 * color.a));
  inverse = 1.0 / p.z;
  vec2 corner = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1)) * 2.0 - 1.0;
  place = corner * reach;
  vec2 pixel = p.xy / p.z * focal + place.x * large * along + place.y * small * vec2(-along.y, along.x);
  gl_Position = vec4(2.0 * pixel / size * vec2(1.0, -1.0), 0.0, 1.0);
}`;
const splatFragment = `#version 300 es
precision highp float;
in vec4 color;
in vec2 place;
in float inverse;
layout(location = 0) out vec4 shown;
layout(location = 1) out vec4 depth;  // sum of inverse depths
void main() {
  float alpha = min(color.a * exp(-0.5 * dot(place, place)), 0.999);
  if (alpha < 1.0 / 255.0) discard;
  shown = vec4(color.rgb * alpha, alpha);
  depth = vec4(inverse * alpha, 0.0, 0.0, alpha);
}`;
const wholeVertex = `#version 300 es
out vec2 at;
void main() { at = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1)) * 2.0; gl_Position = vec4(2.0 * at - 1.0, 0, 1); }`;
const blendFragment = `#version 300 es
precision highp float;
uniform sampler2D near, far, depths, photo, map;
uniform vec2 alphas;  // up to the first a sample before the sky is sky, from the second on it is not
uniform mat3 turn;    // camera from world
uniform vec3 from;
uniform vec2 focal, size, limits;  // limits: same depth, pure sky
uniform vec4 lens;    // focal lengths and center of the photo, over its sides
uniform float textured;
in vec2 at;
out vec4 shown;
// Catmull-Rom in nine bilinear lookups, for a photo that is not larger than the view.
vec3 cubic(vec2 place, vec2 texels) {
  vec2 at = place * texels, middle = floor(at - 0.5) + 0.5, t = at - middle;
  vec2 w0 = t * (-0.5 + t * (1.0 - 0.5 * t)), w1 = 1.0 + t * t * (1.5 * t - 2.5);
  vec2 w2 = t * (0.5 + t * (2.0 - 1.5 * t)), w3 = t * t * (0.5 * t - 0.5), w12 = w1 + w2;
  vec2 p[3] = vec2[3]((middle - 1.0) / texels, (middle + w2 / w12) / texels, (middle + 2.0) / texels);
  vec2 w[3] = vec2[3](w0, w12, w3);
  vec3 sum = vec3(0.0);
  for (int i = 0; i < 3; i++) for (int j = 0; j < 3; j++)
    sum += textureLod(photo, vec2(p[i].x, p[j].y), 0.0).rgb * w[i].x * w[j].y;
  return clamp(sum, 0.0, 1.0);
}
// The photo's own pixels, where the world shows what the photo saw; see WorldWarp's photo texture.
vec3 photographed(vec3 color, float inverse, float known, float sky) {
  vec2 ray = (at - 0.5) * vec2(1.0, -1.0) * size / focal;
  bool far = sky > limits.y;
  vec3 p = (far ? vec3(0.0) : from) + vec3(ray, 1.0) * turn / (far ? 1.0 : max(inverse, 1e-6));
  vec2 place = p.xy / p.z * lens.xy + lens.zw;
  // Four samples, twice as fine as a pixel: one alone is softer than the splats. Outlines must not make them coarse.
  vec2 most = 3.0 * lens.xy / focal, dx = clamp(dFdx(place), -most, most), dy = clamp(dFdy(place), -most, most);
  vec3 found = vec3(0.0);
  vec2 texels = vec2(textureSize(photo, 0));
  float coarse = clamp(log2(max(max(length(dx * texels), length(dy * texels)), 1e-3)), 0.0, 1.0);
  for (int k = 0; k < 4; k++) {
    vec2 apart = 0.25 * coarse * (((k & 1) == 0 ? dx : -dx) + (k < 2 ? dy : -dy));
    found += 0.25 * textureGrad(photo, place + apart, 0.5 * dx, 0.5 * dy).rgb;
  }
  if (coarse < 1.0) found = mix(cubic(place, texels), found, coarse);
  if (known < 0.004 || p.z < 0.0 || any(lessThan(place, vec2(0.0))) || any(greaterThan(place, vec2(1.0)))) return color;
  vec2 there = texture(map, place).rg;
  float kind = texelFetch(map, ivec2(place * vec2(textureSize(map, 0))), 0).g;
  float same = clamp(2.0 - 2.0 * abs(p.z * there.r - 1.0) / limits.x, 0.0, 1.0);
  float share = far ? float(kind > 1.5) : same * float(kind == 1.0) * float(sky < 1.0 - limits.y);
  return mix(color, found, share);
}
void main() {
  vec4 n = texture(near, at), f = texture(far, at);
  float firm = clamp((n.a - alphas.x) / (alphas.y - alphas.x), 0.0, 1.0);
  n *= 1.0 + f.a * (firm / max(n.a, alphas.x) - 1.0);
  vec4 sum = n + (1.0 - n.a) * f;
  float known = smoothstep(0.35, 0.65, sum.a / alphas.y);
  vec3 color = sum.rgb / max(sum.a, 0.004);
  vec2 inverse = texture(depths, at).ra;
  if (textured > 0.5) color = photographed(color, inverse.x / max(inverse.y, 0.004), sum.a, (1.0 - n.a) * f.a / max(sum.a, 0.004));
  shown = vec4(color * known, known);
}`;
const fillFragment = `#version 300 es
precision highp float;
uniform sampler2D picture;
uniform float unknown;  // 1: holes are shown
in vec2 at;
out vec4 shown;
void main() {
  vec4 sum = textureLod(picture, at, 0.0);
  if (unknown > 0.5) { shown = vec4(sum.rgb + (1.0 - sum.a) * vec3(0.5, 0.0, 0.5), 1.0); return; }
  for (float level = 1.0; level < 12.0 && sum.a < 0.99; level += 1.0) {
    vec4 coarse = textureLod(picture, at, level);
    sum += (1.0 - sum.a) * coarse;
  }
  vec3 nothing = vec3(0.082, 0.09, 0.106);  // of the page, where there is no world far and wide
  shown = vec4(mix(nothing, sum.rgb / max(sum.a, 0.01), smoothstep(0.0, 0.1, sum.a)), 1.0);
}`;

function program(vertex, fragment) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.bindAttribLocation(made, 0, 'index');
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  const places = {};
  for (let i = 0; i < gl.getProgramParameter(made, gl.ACTIVE_UNIFORMS); i++) {
    const name = gl.getActiveUniform(made, i).name;
    places[name] = gl.getUniformLocation(made, name);
  }
  return { made, places };
}

function texture(filter) {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, filter);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, filter === gl.NEAREST ? gl.NEAREST : gl.LINEAR);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
  return made;
}

let draw = null, fine = 1;  // canvas pixels per pixel of the screen
function prepareDrawing(data, rows, map) {
  const splat = program(splatVertex, splatFragment), blend = program(wholeVertex, blendFragment);
  const fill = program(wholeVertex, fillFragment);
  const table = texture(gl.NEAREST);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32UI, 2048, rows, 0, gl.RGBA_INTEGER, gl.UNSIGNED_INT, data);
  const layers = [texture(gl.NEAREST), texture(gl.NEAREST), texture(gl.LINEAR_MIPMAP_LINEAR), texture(gl.NEAREST)];
  const buffers = [0, 1, 2].map(() => gl.createFramebuffer());
  const exact = gl.getExtension('EXT_color_buffer_float') || gl.getExtension('EXT_color_buffer_half_float');
  const picture = element('poster'), textured = exact && map && picture.naturalWidth > 0;
  const photo = texture(gl.LINEAR_MIPMAP_LINEAR);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  if (textured) gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB8, gl.RGB, gl.UNSIGNED_BYTE, picture);
  else gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB8, 1, 1, 0, gl.RGB, gl.UNSIGNED_BYTE, new Uint8Array(3));
  gl.generateMipmap(gl.TEXTURE_2D);
  const known = texture(gl.LINEAR);
  if (textured) gl.texImage2D(gl.TEXTURE_2D, 0, gl.RG16F, world.photo.size[1], world.photo.size[0], 0, gl.RG, gl.FLOAT, map);
  else gl.texImage2D(gl.TEXTURE_2D, 0, gl.RG16F, 1, 1, 0, gl.RG, gl.FLOAT, new Float32Array(2));
  const lists = [gl.createBuffer(), gl.createBuffer()], arrays = [gl.createVertexArray(), gl.createVertexArray()];
  for (let k = 0; k < 2; k++) {
    gl.bindVertexArray(arrays[k]);
    gl.bindBuffer(gl.ARRAY_BUFFER, lists[k]);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribIPointer(0, 1, gl.UNSIGNED_INT, 0, 0);
    gl.vertexAttribDivisor(0, 1);
  }
  const empty = gl.createVertexArray(), sky = new Uint32Array(world.count - world.surfaces);
  for (let i = 0; i < sky.length; i++) sky[i] = world.surfaces + i;
  gl.bindBuffer(gl.ARRAY_BUFFER, lists[1]);
  gl.bufferData(gl.ARRAY_BUFFER, sky, gl.STATIC_DRAW);
  const counts = [0, sky.length];
  let width = 0, height = 0;
  gl.disable(gl.DEPTH_TEST);

  function resize() {
    [width, height] = [canvas.width, canvas.height];
    layers.forEach((layer, k) => {
      gl.bindTexture(gl.TEXTURE_2D, layer);
      if (k !== 2 && exact) gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA16F, width, height, 0, gl.RGBA, gl.HALF_FLOAT, null);
      else gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, width, height, 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
      // The last is the second output of the first.
      gl.bindFramebuffer(gl.FRAMEBUFFER, buffers[k % 3]);
      gl.framebufferTexture2D(gl.FRAMEBUFFER, k < 3 ? gl.COLOR_ATTACHMENT0 : gl.COLOR_ATTACHMENT1, gl.TEXTURE_2D, layer, 0);
      if (k === 3) gl.drawBuffers([gl.COLOR_ATTACHMENT0, gl.COLOR_ATTACHMENT1]);
    });
  }

  return {
    order(list, shown) {
      gl.bindBuffer(gl.ARRAY_BUFFER, lists[0]);
      gl.bufferData(gl.ARRAY_BUFFER, list, gl.DYNAMIC_DRAW);
      counts[0] = shown;
    },
    frame(camera, unknown) {
      if (canvas.width !== width || canvas.height !== height) resize();
      gl.viewport(0, 0, width, height);
      gl.clearColor(0, 0, 0, 0);
      gl.useProgram(splat.made);
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
      gl.activeTexture(gl.TEXTURE0);
      gl.bindTexture(gl.TEXTURE_2D, table);
      gl.uniform1i(splat.places.rows, 0);
      gl.uniformMatrix3fv(splat.places.turn, true, camera.turn);
      gl.uniform2f(splat.places.focal, camera.focal, camera.focal);
      gl.uniform2f(splat.places.size, width, height);
      gl.uniform4fv(splat.places.kernel, world.kernel);
      gl.uniform1f(splat.places.floor2, world.footprint_floor);
      for (let k = 0; k < 2; k++) {
        gl.bindFramebuffer(gl.FRAMEBUFFER, buffers[k]);
        gl.clear(gl.COLOR_BUFFER_BIT);
        // The sky is seen from the origin, wherever the camera is.
        gl.uniform3fv(splat.places.from, k ? [0, 0, 0] : camera.from);
        gl.bindVertexArray(arrays[k]);
        if (counts[k]) gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, counts[k]);
      }
      gl.disable(gl.BLEND);
      gl.bindVertexArray(empty);
      gl.bindFramebuffer(gl.FRAMEBUFFER, buffers[2]);
      gl.useProgram(blend.made);
      gl.bindTexture(gl.TEXTURE_2D, layers[0]);
      gl.activeTexture(gl.TEXTURE1);
      gl.bindTexture(gl.TEXTURE_2D, layers[1]);
      [known, photo, layers[3]].forEach((made, k) => { gl.activeTexture(gl.TEXTURE2 + k); gl.bindTexture(gl.TEXTURE_2D, made); });
      ['near', 'far', 'map', 'photo', 'depths'].forEach((name, k) => gl.uniform1i(blend.places[name], k));
      gl.uniformMatrix3fv(blend.places.turn, true, camera.turn);
      gl.uniform3fv(blend.places.from, camera.from);
      gl.uniform2f(blend.places.focal, camera.focal, camera.focal);
      gl.uniform2f(blend.places.size, width, height);
      gl.uniform1f(blend.places.textured, textured ? 1 : 0);
      gl.uniform4fv(blend.places.lens, textured ? world.photo.lens : [1, 1, 0, 0]);
      gl.uniform2fv(blend.places.limits, textured ? world.photo.limits : [1, 1]);
      gl.uniform2fv(blend.places.alphas, world.alphas);
      gl.drawArrays(gl.TRIANGLES, 0, 3);
      gl.bindFramebuffer(gl.FRAMEBUFFER, null);
      gl.useProgram(fill.made);
      gl.activeTexture(gl.TEXTURE1);
      gl.bindTexture(gl.TEXTURE_2D, layers[2]);
      gl.generateMipmap(gl.TEXTURE_2D);
      gl.uniform1i(fill.places.picture, 1);
      gl.uniform1f(fill.places.unknown, unknown ? 1 : 0);
      gl.drawArrays(gl.TRIANGLES, 0, 3);
    },
  };
}

// --- the camera -----------------------------------------------------------------------------------
// World axes are x right, y down, z forward; a path camera is [x, y, z, qw, qx, qy, qz, focal over width].
const path = world.path;
const look = { pivot: [0, 0, world.pivot], yaw: 0, pitch: 0, distance: world.pivot, zoom: 1, free: false };
let playing = false, place = 0, unknown = false, pose = null;

function rotation([w, x, y, z]) {
  return [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), 2 * (x * y + w * z),
    1 - 2 * (x * x + z * z), 2 * (y * z - w * x), 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)];
}
function onPath(at) {
  const k = Math.min(Math.floor(at), Math.max(path.length - 2, 0)), t = at - k, a = path[k], b = path[Math.min(k + 1, path.length - 1)];
  const same = a.slice(3, 7).reduce((sum, v, i) => sum + v * b[3 + i], 0) < 0 ? -1 : 1;
  const mixed = a.map((v, i) => v * (1 - t) + (i > 2 && i < 7 ? same : 1) * b[i] * t);
  const length = Math.hypot(...mixed.slice(3, 7));
  return { from: mixed.slice(0, 3), axes: rotation(mixed.slice(3, 7).map(v => v / length)), lens: mixed[7] };
}
function freePose() {
  const [sy, cy, sp, cp] = [Math.sin(look.yaw), Math.cos(look.yaw), Math.sin(look.pitch), Math.cos(look.pitch)];
  // Columns: right, down, ahead. Never rolled: up stays up.
  const axes = [cy, sy * sp, sy * cp, 0, cp, -sp, -sy, cy * sp, cy * cp];
  const from = look.pivot.map((v, k) => v - look.distance * axes[3 * k + 2]);
  return { from, axes, lens: look.lens };
}
function takeOver() {
  if (look.free) return;
  const { from, axes, lens } = onPath(place), ahead = [axes[2], axes[5], axes[8]];
  Object.assign(look, { free: true, distance: world.pivot, lens, yaw: Math.atan2(ahead[0], ahead[2]), pitch: Math.asin(Math.max(-1, Math.min(1, -ahead[1]))) });
  look.pivot = from.map((v, k) => v + look.distance * ahead[k]);
  play(false);
}
function camera() {
  const { from, axes, lens } = pose || (look.free ? freePose() : onPath(place));
  // The photo's frame fills the window; of a frame of another shape at most two fifths are cut off.
  const [height, width] = world.size, [w, h] = [canvas.width, canvas.height];
  const inside = Math.min(w / width, h / height), filled = Math.max(w / width, h / height);
  const focal = lens * width * Math.min(filled, inside / 0.6) * look.zoom;
  return { from, focal, turn: [axes[0], axes[3], axes[6], axes[1], axes[4], axes[7], axes[2], axes[5], axes[8]] };
}

// --- every frame ----------------------------------------------------------------------------------
let sorting = false, sorted = null, last = 0, wanted = true, slow = 0;
const worker = (() => {
  const source = `(${work})()`;
  return new Worker(URL.createObjectURL(new Blob([source], { type: 'text/javascript' })));
})();
function frame(now) {
  requestAnimationFrame(frame);
  const since = Math.min(now - last, 200);
  last = now;
  if (playing) {
    place += since / 1000 * world.fps;
    if (place >= path.length - 1) { place = path.length - 1; play(false); }
    element('at').value = place / Math.max(path.length - 1, 1);
    wanted = true;
  }
  if (fly(since)) wanted = true;
  const sharp = Math.min(devicePixelRatio || 1, 2) * fine;
  const [w, h] = [Math.max(1, Math.round(innerWidth * sharp)), Math.max(1, Math.round(innerHeight * sharp))];
  if (canvas.width !== w || canvas.height !== h) { [canvas.width, canvas.height] = [w, h]; wanted = true; }
  if (!draw || !wanted) return;
  const c = camera(), ahead = [c.turn[6], c.turn[7], c.turn[8], 0];
  ahead[3] = ahead[0] * c.from[0] + ahead[1] * c.from[1] + ahead[2] * c.from[2];
  const key = ahead.map(v => v.toFixed(5)).join();
  if (!sorting && key !== sorted) { sorting = true; sorted = key; worker.postMessage({ ahead }); }
  draw.frame(c, unknown);
  wanted = false;
  window.drawn = !sorting;  // whether the picture is final
  // A slow device draws fewer pixels while the picture moves.
  slow = playing || held.size ? 0.9 * slow + 0.1 * since : 0;
  if (slow > 60 && fine > 0.5) { fine *= 0.8; slow = 0; }
}
worker.onmessage = event => {
  if (event.data.data) {
    draw = prepareDrawing(event.data.data, event.data.rows, event.data.photo);
    wanted = true;
    return;
  }
  draw.order(event.data.order, event.data.shown);
  sorting = false;
  wanted = true;
  if (element('poster').style.opacity !== '0') begin();
};
function begin() {
  element('poster').style.opacity = 0;
  say('drag to look around, pinch or scroll to move, space plays the path');
  setTimeout(() => say(''), 4000);
  if (!location.hash.includes('still') && path.length > 1) play(true);
}

// --- hands ----------------------------------------------------------------------------------------
const held = new Map(), keys = new Set();
function play(on) {
  playing = on && path.length > 1;
  if (playing) {
    if (place >= path.length - 1) place = 0;
    look.free = false;
  }
  element('sign').setAttribute('d', playing ? 'M8 5v14M16 5v14' : 'M7 5l12 7-12 7z');
  wanted = true;
}
function home() { play(false); Object.assign(look, { free: false, zoom: 1 }); place = 0; element('at').value = 0; wanted = true; }
function turnBy(dx, dy) {
  takeOver();
  look.yaw -= dx * 0.004;
  look.pitch = Math.max(-1.4, Math.min(1.4, look.pitch + dy * 0.004));
  wanted = true;
}
function shiftBy(dx, dy) {
  takeOver();
  const { axes } = freePose(), step = look.distance / camera().focal * Math.min(devicePixelRatio || 1, 2) * fine;
  look.pivot = look.pivot.map((v, k) => v - step * (dx * axes[3 * k] + dy * axes[3 * k + 1]));
  wanted = true;
}
function comeBy(factor) {
  takeOver();
  const nearest = 0.05 * world.pivot, wantedDistance = look.distance * factor;
  const { axes } = freePose();
  // Beyond the pivot the whole view goes on ahead.
  if (wantedDistance < nearest) look.pivot = look.pivot.map((v, k) => v + (nearest - wantedDistance) * axes[3 * k + 2]);
  look.distance = Math.max(nearest, wantedDistance);
  wanted = true;
}
canvas.addEventListener('pointerdown', event => {
  held.set(event.pointerId, [event.clientX, event.clientY]);
  canvas.setPointerCapture(event.pointerId);
  canvas.focus();
});
canvas.addEventListener('pointermove', event => {
  const before = held.get(event.pointerId);
  if (!before) return;
  const now = [event.clientX, event.clientY], dx = now[0] - before[0], dy = now[1] - before[1];
  if (held.size === 1) {
    if (event.buttons & 2 || event.shiftKey) shiftBy(dx, dy); else turnBy(dx, dy);
  } else {
    const other = [...held].find(([id]) => id !== event.pointerId)[1];
    const apart = point => Math.hypot(point[0] - other[0], point[1] - other[1]);
    comeBy(Math.max(apart(before), 10) / Math.max(apart(now), 10));
    shiftBy(dx / 2, dy / 2);
  }
  held.set(event.pointerId, now);
});
for (const kind of ['pointerup', 'pointercancel']) canvas.addEventListener(kind, event => held.delete(event.pointerId));
canvas.addEventListener('contextmenu', event => event.preventDefault());
canvas.addEventListener('wheel', event => { event.preventDefault(); comeBy(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.003)); }, { passive: false });
canvas.addEventListener('dblclick', home);
function fly(since) {
  const along = (plus, minus) => (keys.has(plus) ? 1 : 0) - (keys.has(minus) ? 1 : 0);
  const right = along('d', 'a') + along('arrowright', 'arrowleft'), ahead = along('w', 's') + along('arrowup', 'arrowdown');
  const down = along('q', 'e');
  if (!right && !ahead && !down) return false;
  takeOver();
  const { axes } = freePose(), step = since / 1000 * 0.4 * world.pivot;
  look.pivot = look.pivot.map((v, k) => v + step * (right * axes[3 * k] + down * (k === 1) + ahead * axes[3 * k + 2]));
  return true;
}
addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  if (event.target.tagName === 'INPUT' && key.startsWith('arrow')) return;
  if (key === ' ') { event.preventDefault(); play(!playing); }
  else if (key === 'h') home();
  else if (key === 'u') element('holes').click();
  else if (key === 'f') element('full').click();
  else keys.add(key);
});
addEventListener('keyup', event => keys.delete(event.key.toLowerCase()));
addEventListener('blur', () => keys.clear());
element('play').onclick = () => { play(!playing); canvas.focus(); };
element('home').onclick = home;
element('holes').onclick = () => { unknown = !unknown; wanted = true; };
element('full').onclick = () => document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen?.();
if (!document.documentElement.requestFullscreen) element('full').style.display = 'none';
element('at').oninput = event => { play(false); look.free = false; place = event.target.value * (path.length - 1); wanted = true; };
if (path.length < 2) for (const id of ['play', 'at']) element(id).style.visibility = 'hidden';

// For programs that look at this page: an exact camera, and whether it is shown.
window.worldwarp = {
  show(at) { play(false); look.free = false; place = at; pose = null; wanted = true; sorted = null; window.drawn = false; element('at').value = at / Math.max(path.length - 1, 1); },
  showPose(from, axes, lens) { play(false); pose = { from, axes, lens }; wanted = true; sorted = null; window.drawn = false; },
  world,
};

(async () => {
  if (!gl) { say('This browser has no WebGL2, which the world needs; try another, or turn hardware acceleration on.'); return; }
  if (typeof DecompressionStream === 'undefined') { say('This browser is too old for this file: it needs one of 2023 or later.'); return; }
  await element('poster').decode().catch(() => null);
  const source = element('splats'), binary = atob(source.textContent.trim()), packed = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) packed[i] = binary.charCodeAt(i);
  source.remove();
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  worker.postMessage({ bytes, meta: world }, [bytes.buffer]);
  requestAnimationFrame(frame);
})().catch(error => say(`The world cannot be shown: ${error.message}`));
