// A glass marble rolls over a chess board while the camera circles it.
// clock runs from 0 to 1 over the animation; the last frame meets the first.
#version 3.7;
global_settings { assumed_gamma 1.0 max_trace_level 8 }

#declare Turn = 2 * pi * clock;

camera {
  location <7 * sin(Turn), 3.2, -7 * cos(Turn)>
  look_at <0, 0.7, 0>
  angle 38
}

light_source { <20, 30, -20> rgb 0.9 area_light <4, 0, 0>, <0, 0, 4>, 3, 3 jitter }
light_source { <-15, 12, 10> rgb <0.25, 0.28, 0.35> shadowless }

sky_sphere { pigment { gradient y color_map { [0 rgb <0.85, 0.9, 1>] [0.6 rgb <0.25, 0.45, 0.85>] } } }

plane {
  y, 0
  pigment { checker rgb <0.92, 0.89, 0.82>, rgb <0.12, 0.13, 0.16> }
  finish { reflection 0.12 specular 0.3 }
}

// The marble.
sphere {
  <1.8 * cos(3 * Turn), 0.8, 1.8 * sin(3 * Turn)>, 0.8
  pigment { rgbt <0.95, 0.98, 1, 0.92> }
  finish { specular 0.9 roughness 0.003 reflection { 0.05, 0.7 fresnel } conserve_energy }
  interior { ior 1.5 fade_distance 3 fade_power 1 }
}

// A ring of towers that grow and shrink one after the other.
#declare N = 0;
#while (N < 12)
  #declare Angle = 2 * pi * N / 12;
  #declare Height = 0.9 + 0.6 * sin(Turn * 2 + Angle);
  cylinder {
    <3.2 * cos(Angle), 0, 3.2 * sin(Angle)>, <3.2 * cos(Angle), Height, 3.2 * sin(Angle)>, 0.28
    pigment { rgb <0.5 + 0.5 * sin(Angle), 0.5 + 0.5 * sin(Angle + 2.1), 0.5 + 0.5 * sin(Angle + 4.2)> }
    finish { specular 0.6 roughness 0.02 reflection 0.05 }
  }
  #declare N = N + 1;
#end
